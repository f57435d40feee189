mock_provider "azurerm" {
  source = "../../../tests/mocks/azure"
}

variables {
  postgres_admin_password = "Aa0123456789abcdef0123456789abcdef"
}

run "the_environment_can_be_made_and_hands_over_its_name" {
  command = plan

  assert {
    condition     = output.cloud == "azure" && output.environment == "dev" && output.cluster_name == "isa-dev" && output.secret_prefix == "isa-dev-" && output.region == "westeurope"
    error_message = "The environment's name must be in everything that it hands over."
  }
}
