mock_provider "azurerm" {
  source = "../../tests/mocks/azure"
}

variables {
  subscription_id = "00000000-0000-0000-0000-000000000000"
  location        = "westeurope"
  environment     = "prod"
  operator_cidrs  = ["198.51.100.0/24"]
  repository      = "isa-cloud/isa"
}

run "a_state_is_never_public_and_never_lost" {
  command = plan

  assert {
    condition     = azurerm_storage_account.state.network_rules[0].default_action == "Deny" && !azurerm_storage_account.state.shared_access_key_enabled && azurerm_storage_account.state.blob_properties[0].versioning_enabled && azurerm_storage_account.state.account_replication_type == "GZRS"
    error_message = "The state must be private, every version of it kept, in two regions."
  }
}

run "only_our_repository_gets_in" {
  command = plan

  assert {
    condition     = azurerm_federated_identity_credential.ci["apply"].subject == "repo:isa-cloud/isa:environment:prod" && azurerm_federated_identity_credential.ci["plan"].subject == "repo:isa-cloud/isa:pull_request"
    error_message = "Tokens of other repositories must be refused."
  }
}

run "a_pull_request_only_looks" {
  command = plan

  assert {
    condition     = azurerm_role_assignment.ci["plan"].role_definition_name == "Reader" && azurerm_role_assignment.ci["apply"].role_definition_name == "Owner"
    error_message = "Only the environment's job may apply."
  }
}

run "an_unknown_environment_is_refused" {
  command = plan

  variables {
    environment = "test"
  }

  expect_failures = [var.environment]
}

run "every_repository_is_refused" {
  command = plan

  variables {
    repository = "isa-cloud/*"
  }

  expect_failures = [var.repository]
}

run "everybody_is_refused" {
  command = plan

  variables {
    operator_cidrs = ["0.0.0.0/0"]
  }

  expect_failures = [var.operator_cidrs]
}
