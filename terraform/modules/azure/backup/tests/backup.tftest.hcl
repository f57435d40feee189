mock_provider "azurerm" {
  source = "../../../tests/mocks/azure"
}

variables {
  name                 = "isa-prod"
  location             = "westeurope"
  resource_group_name  = "isa-prod"
  has_copies           = true
  is_protected         = true
  cluster_id           = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/isa-prod/providers/Microsoft.ContainerService/managedClusters/isa-prod"
  cluster_principal_id = "33333333-3333-3333-3333-333333333333"
  server_id            = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/isa-prod/providers/Microsoft.DBforPostgreSQL/flexibleServers/isa-prod"
  snapshot_days        = 7
  tenant_id            = "22222222-2222-2222-2222-222222222222"
  subscription_id      = "00000000-0000-0000-0000-000000000000"
  key                  = { id = "https://isa-prod-serv-a1b2c3.vault.azure.net/keys/backup", resource_id = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/isa-prod/providers/Microsoft.KeyVault/vaults/isa-prod-serv-a1b2c3/keys/backup" }
  storage              = { account_id = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/isa-prod/providers/Microsoft.Storage/storageAccounts/isaproda1b2c3", account_name = "isaproda1b2c3", container = "backup" }
}

run "the_vault_is_in_two_regions" {
  command = plan

  assert {
    condition     = azurerm_data_protection_backup_vault.this.redundancy == "GeoRedundant" && azurerm_data_protection_backup_vault.this.cross_region_restore_enabled
    error_message = "Production's backups must be restorable in the paired region."
  }
}

run "a_backup_cannot_be_deleted_before_its_time" {
  command = plan

  assert {
    condition     = azurerm_data_protection_backup_vault.this.immutability == "Unlocked" && azurerm_data_protection_backup_vault.this.soft_delete == "On"
    error_message = "The vault must be immutable, and deleted backups kept for two weeks."
  }
}

run "volumes_are_copied_every_four_hours" {
  command = plan

  assert {
    condition     = azurerm_data_protection_backup_policy_kubernetes_cluster.this.backup_repeating_time_intervals[0] == "R/2026-01-01T00:30:00+00:00/PT4H" && contains(azurerm_data_protection_backup_instance_kubernetes_cluster.this.backup_datasource_parameters[0].included_namespaces, "isa-data")
    error_message = "Four hours is the shortest that Azure has."
  }
}

run "postgres_is_kept_for_a_year" {
  command = plan

  assert {
    condition     = azurerm_data_protection_backup_policy_postgresql_flexible_server.this.default_retention_rule[0].life_cycle[0].duration == "P12M"
    error_message = "A weekly backup of PostgreSQL must be kept for a year."
  }
}

run "the_vault_may_not_write_the_cluster" {
  command = plan

  assert {
    condition     = azurerm_role_assignment.this["vault-reads-cluster"].role_definition_name == "Reader" && azurerm_role_assignment.this["vault-reads-objects"].role_definition_name == "Storage Blob Data Reader"
    error_message = "The vault reads; the cluster and its agent write."
  }
}

run "without_copies_the_vault_is_in_three_zones" {
  command = plan

  variables {
    has_copies   = false
    is_protected = false
  }

  assert {
    condition     = azurerm_data_protection_backup_vault.this.redundancy == "ZoneRedundant" && azurerm_data_protection_backup_vault.this.immutability == "Disabled"
    error_message = "Without copies the vault must be in the region's zones."
  }
}
