mock_provider "azurerm" {
  source = "../../../tests/mocks/azure"
}

variables {
  name                = "isa-prod"
  location            = "westeurope"
  resource_group_name = "isa-prod"
  unique              = "a1b2c3"
  operator_cidrs      = ["198.51.100.0/24"]
  subnet_id           = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/isa-prod/providers/Microsoft.Network/virtualNetworks/isa-prod/subnets/endpoints"
  private_zone_id     = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/isa-prod/providers/Microsoft.Network/privateDnsZones/privatelink.blob.core.windows.net"
  has_copies          = true
  loki_days           = 95
  backup_days         = 35
  key                 = { id = "https://isa-prod-serv-a1b2c3.vault.azure.net/keys/objects", identity_id = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/isa-prod/providers/Microsoft.ManagedIdentity/userAssignedIdentities/isa-prod-objects" }
  log_workspace_id    = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/isa-prod/providers/Microsoft.OperationalInsights/workspaces/isa-prod"
}

run "nothing_is_ever_public" {
  command = plan

  assert {
    condition     = !azurerm_storage_account.this.allow_nested_items_to_be_public && azurerm_storage_account.this.network_rules[0].default_action == "Deny" && alltrue([for container in azurerm_storage_container.this : container.container_access_type == "private"])
    error_message = "Public access must be impossible, whatever a container says."
  }
}

run "there_are_no_shared_keys" {
  command = plan

  assert {
    condition     = !azurerm_storage_account.this.shared_access_key_enabled && !azurerm_storage_account.this.local_user_enabled && azurerm_storage_account.this.min_tls_version == "TLS1_2"
    error_message = "Only Entra's identities may come, by TLS."
  }
}

run "it_is_encrypted_with_our_key" {
  command = plan

  assert {
    condition     = azurerm_storage_account.this.customer_managed_key[0].key_vault_key_id == var.key.id && azurerm_storage_account.this.infrastructure_encryption_enabled
    error_message = "Objects need our key."
  }
}

run "production_is_in_two_regions" {
  command = plan

  assert {
    condition     = azurerm_storage_account.this.account_replication_type == "RAGZRS"
    error_message = "Production's objects must be in three zones and in the paired region."
  }
}

run "without_copies_it_is_in_three_zones" {
  command = plan

  variables {
    has_copies = false
  }

  assert {
    condition     = azurerm_storage_account.this.account_replication_type == "ZRS"
    error_message = "Everywhere objects must be in three zones."
  }
}

run "what_is_deleted_can_be_had_back" {
  command = plan

  assert {
    condition     = azurerm_storage_account.this.blob_properties[0].versioning_enabled && azurerm_storage_account.this.blob_properties[0].delete_retention_policy[0].days == 30
    error_message = "Versions and deleted objects must be kept for 30 days."
  }
}

run "reads_are_written_down" {
  command = plan

  assert {
    condition     = toset([for log in azurerm_monitor_diagnostic_setting.this.enabled_log : log.category]) == toset(["StorageRead", "StorageWrite", "StorageDelete"])
    error_message = "Reads, writes and deletions must be logged."
  }
}
