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
  replica_location    = "northeurope"
  is_hardware         = true
}

run "every_purpose_has_a_key_of_its_own" {
  command = plan

  assert {
    condition     = length(azurerm_key_vault_key.this) == 8 && alltrue([for key in azurerm_key_vault_key.this : key.key_type == "RSA-HSM" && key.rotation_policy[0].automatic[0].time_after_creation == "P1Y"])
    error_message = "Seven purposes and one copy need a key each, in hardware, new every year."
  }
}

run "what_a_key_encrypts_cannot_be_lost_with_it" {
  command = plan

  assert {
    condition     = alltrue([for vault in azurerm_key_vault.this : vault.purge_protection_enabled && vault.soft_delete_retention_days == 90 && vault.rbac_authorization_enabled])
    error_message = "A deleted key must come back for 90 days, and rights must be Entra's."
  }
}

run "only_azures_services_and_operators_reach_the_keys" {
  command = plan

  assert {
    condition     = azurerm_key_vault.this["services"].network_acls[0].default_action == "Deny" && azurerm_key_vault.this["services"].network_acls[0].bypass == "AzureServices" && azurerm_key_vault.this["replica"].network_acls[0].default_action == "Deny"
    error_message = "The vaults of services must stand behind their firewalls."
  }
}

run "the_cluster_key_is_alone_where_aks_reaches_it" {
  command = plan

  assert {
    condition     = toset([for name, key in local.keys : name if key.vault == "cluster"]) == toset(["cluster"])
    error_message = "The vault without a firewall must hold nothing but the cluster's key."
  }
}

run "disks_are_encrypted_twice" {
  command = plan

  assert {
    condition     = azurerm_disk_encryption_set.this.encryption_type == "EncryptionAtRestWithPlatformAndCustomerKeys" && azurerm_disk_encryption_set.this.auto_key_rotation_enabled
    error_message = "Disks need Azure's key and ours, which follows rotations."
  }
}

run "without_copies_no_key_is_elsewhere" {
  command = plan

  variables {
    replica_location = ""
  }

  assert {
    condition     = alltrue([for vault in azurerm_key_vault.this : vault.location == "westeurope"]) && length(azurerm_key_vault_key.this) == 7
    error_message = "An environment without copies needs keys in its own region only."
  }
}

run "a_long_name_is_refused" {
  command = plan

  variables {
    name = "isa-a-very-long-environment"
  }

  expect_failures = [var.name]
}

run "copies_in_the_same_region_are_refused" {
  command = plan

  variables {
    replica_location = "westeurope"
  }

  expect_failures = [var.replica_location]
}
