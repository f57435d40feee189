mock_provider "azurerm" {
  source = "../../../tests/mocks/azure"
}

variables {
  name                = "isa-prod"
  location            = "westeurope"
  resource_group_name = "isa-prod"
  unique              = "a1b2c3"
  operator_cidrs      = ["198.51.100.0/24"]
  tenant_id           = "22222222-2222-2222-2222-222222222222"
  administrator_id    = "33333333-3333-3333-3333-333333333333"
  prefix              = "isa-prod-"
  values              = { redis-password = "from-managed-redis" }
  value_versions      = { redis-password = 1 }
  rotation_days       = 120
  subnet_id           = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/isa-prod/providers/Microsoft.Network/virtualNetworks/isa-prod/subnets/endpoints"
  private_zone_id     = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/isa-prod/providers/Microsoft.Network/privateDnsZones/privatelink.vaultcore.azure.net"
  log_workspace_id    = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/isa-prod/providers/Microsoft.OperationalInsights/workspaces/isa-prod"
}

run "an_entry_is_named_as_the_contract_says" {
  command = plan

  assert {
    condition     = azurerm_key_vault_secret.this["redis-password"].name == "isa-prod-redis-password"
    error_message = "external-secrets asks for <prefix><name>."
  }
}

run "terraform_knows_no_value" {
  command = plan

  assert {
    condition     = azurerm_key_vault_secret.this["redis-password"].value_wo_version == 1 && azurerm_key_vault_secret.this["redis-password"].value == null
    error_message = "Values must be handed over by the write-only argument."
  }
}

run "the_vault_is_private_and_never_lost" {
  command = plan

  assert {
    condition     = azurerm_key_vault.this.network_acls[0].default_action == "Deny" && azurerm_key_vault.this.purge_protection_enabled && azurerm_key_vault.this.rbac_authorization_enabled
    error_message = "Only pods and operators may come, by Entra's rights; what is deleted comes back for 90 days."
  }
}

run "who_read_a_secret_is_written_down" {
  command = plan

  assert {
    condition     = contains([for log in azurerm_monitor_diagnostic_setting.this.enabled_log : log.category], "AuditEvent")
    error_message = "The vault's audit log must be kept."
  }
}

run "a_prefix_of_another_form_is_refused" {
  command = plan

  variables {
    prefix = "prod/"
  }

  expect_failures = [var.prefix]
}

run "a_month_is_refused" {
  command = plan

  variables {
    rotation_days = 30
  }

  expect_failures = [var.rotation_days]
}
