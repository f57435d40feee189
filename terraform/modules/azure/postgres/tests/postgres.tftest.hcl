mock_provider "azurerm" {
  source = "../../../tests/mocks/azure"
}

variables {
  name                   = "isa-prod"
  location               = "westeurope"
  resource_group_name    = "isa-prod"
  subnet_id              = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/isa-prod/providers/Microsoft.Network/virtualNetworks/isa-prod/subnets/postgres"
  private_zone_id        = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/isa-prod/providers/Microsoft.Network/privateDnsZones/isa-prod.private.postgres.database.azure.com"
  sku_name               = "GP_Standard_D4ads_v5"
  storage_mb             = 131072
  high_availability      = true
  backup_days            = 35
  admin_user             = "isa"
  admin_password         = "Aa0123456789abcdef0123456789abcdef"
  admin_password_version = 1
  key                    = { id = "https://isa-prod-serv-a1b2c3.vault.azure.net/keys/postgres", identity_id = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/isa-prod/providers/Microsoft.ManagedIdentity/userAssignedIdentities/isa-prod-postgres" }
  geo_key                = { id = "https://isa-prod-repl-a1b2c3.vault.azure.net/keys/postgres-replica", identity_id = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/isa-prod/providers/Microsoft.ManagedIdentity/userAssignedIdentities/isa-prod-postgres-replica" }
  log_workspace_id       = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/isa-prod/providers/Microsoft.OperationalInsights/workspaces/isa-prod"
}

run "it_has_no_public_address_and_takes_no_plain_text" {
  command = plan

  assert {
    condition     = !azurerm_postgresql_flexible_server.this.public_network_access_enabled && azurerm_postgresql_flexible_server.this.delegated_subnet_id == var.subnet_id && azurerm_postgresql_flexible_server_configuration.this["require_secure_transport"].value == "on" && azurerm_postgresql_flexible_server_configuration.this["ssl_min_protocol_version"].value == "TLSv1.2"
    error_message = "PostgreSQL must be in its subnet and refuse plain text."
  }
}

run "everything_stored_is_encrypted_with_our_keys" {
  command = plan

  assert {
    condition     = azurerm_postgresql_flexible_server.this.customer_managed_key[0].key_vault_key_id == var.key.id && azurerm_postgresql_flexible_server.this.customer_managed_key[0].geo_backup_key_vault_key_id == var.geo_key.id
    error_message = "The disk needs our key, the copies in the other region that region's."
  }
}

run "any_second_of_35_days_can_be_restored_in_two_regions" {
  command = plan

  assert {
    condition     = azurerm_postgresql_flexible_server.this.backup_retention_days == 35 && azurerm_postgresql_flexible_server.this.geo_redundant_backup_enabled
    error_message = "Production keeps the longest that Azure restores from, in both regions."
  }
}

run "a_zone_may_be_lost" {
  command = plan

  assert {
    condition     = azurerm_postgresql_flexible_server.this.high_availability[0].mode == "ZoneRedundant" && azurerm_postgresql_flexible_server.this.zone != azurerm_postgresql_flexible_server.this.high_availability[0].standby_availability_zone
    error_message = "The standby must be in another zone."
  }
}

run "terraform_knows_no_password" {
  command = plan

  assert {
    condition     = azurerm_postgresql_flexible_server.this.administrator_password_wo_version == 1 && azurerm_postgresql_flexible_server.this.administrator_password == null
    error_message = "The password must be handed over by the write-only argument: another one would be in the state."
  }
}

run "the_server_has_what_the_adapter_relies_on" {
  command = plan

  assert {
    condition     = { for name in ["temp_file_limit", "max_locks_per_transaction", "idle_in_transaction_session_timeout", "jit"] : name => azurerm_postgresql_flexible_server_configuration.this[name].value } == { temp_file_limit = "1048576", max_locks_per_transaction = "256", idle_in_transaction_session_timeout = "60000", jit = "off" }
    error_message = "These are the settings that docker-compose.yml gives its PostgreSQL; both must be the same."
  }
}

run "without_copies_backups_stay_in_the_region" {
  command = plan

  variables {
    geo_key = null
  }

  assert {
    condition     = !azurerm_postgresql_flexible_server.this.geo_redundant_backup_enabled
    error_message = "Without a key in the other region there are no copies there."
  }
}

run "an_old_postgres_is_refused" {
  command = plan

  variables {
    engine_version = "15"
  }

  expect_failures = [var.engine_version]
}

run "an_unknown_machine_is_refused" {
  command = plan

  variables {
    sku_name = "Standard_D4ads_v5"
  }

  expect_failures = [var.sku_name]
}

run "an_odd_size_is_refused" {
  command = plan

  variables {
    storage_mb = 100000
  }

  expect_failures = [var.storage_mb]
}

run "a_standby_of_a_burstable_machine_is_refused" {
  command = plan

  variables {
    sku_name          = "B_Standard_B2s"
    high_availability = true
  }

  expect_failures = [var.high_availability]
}

run "three_days_of_backups_are_refused" {
  command = plan

  variables {
    backup_days = 3
  }

  expect_failures = [var.backup_days]
}
