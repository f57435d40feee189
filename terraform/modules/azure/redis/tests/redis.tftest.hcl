mock_provider "azurerm" {
  source = "../../../tests/mocks/azure"
}

variables {
  name                = "isa-prod"
  location            = "westeurope"
  resource_group_name = "isa-prod"
  unique              = "a1b2c3"
  subnet_id           = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/isa-prod/providers/Microsoft.Network/virtualNetworks/isa-prod/subnets/endpoints"
  private_zone_id     = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/isa-prod/providers/Microsoft.Network/privateDnsZones/privatelink.redis.azure.net"
  sku_name            = "Balanced_B5"
  high_availability   = true
  key                 = { versioned_id = "https://isa-prod-serv-a1b2c3.vault.azure.net/keys/redis/0123456789abcdef0123456789abcdef", identity_id = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/isa-prod/providers/Microsoft.ManagedIdentity/userAssignedIdentities/isa-prod-redis" }
  log_workspace_id    = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/isa-prod/providers/Microsoft.OperationalInsights/workspaces/isa-prod"
}

run "it_asks_for_a_password_over_tls" {
  command = plan

  assert {
    condition     = azurerm_managed_redis.this.default_database[0].access_keys_authentication_enabled && azurerm_managed_redis.this.default_database[0].client_protocol == "Encrypted" && output.port == "10000"
    error_message = "Redis must ask for a password and speak TLS, at port 10000."
  }
}

run "it_is_private_and_encrypted_with_our_key" {
  command = plan

  assert {
    condition     = azurerm_managed_redis.this.public_network_access == "Disabled" && azurerm_managed_redis.this.customer_managed_key[0].key_vault_key_id == var.key.versioned_id
    error_message = "Redis must be private, with our key."
  }
}

run "an_hour_is_lost_at_most" {
  command = plan

  assert {
    condition     = azurerm_managed_redis.this.default_database[0].persistence_redis_database_backup_frequency == "1h"
    error_message = "Snapshots must be taken every hour."
  }
}

run "it_never_forgets_by_itself" {
  command = plan

  assert {
    condition     = azurerm_managed_redis.this.default_database[0].eviction_policy == "NoEviction"
    error_message = "A full Redis must refuse writes, as the local one does."
  }
}

run "commands_over_several_keys_work" {
  command = plan

  assert {
    condition     = azurerm_managed_redis.this.default_database[0].clustering_policy == "NoCluster"
    error_message = "The rooms use one address and commands over several keys."
  }
}

run "a_zone_may_be_lost" {
  command = plan

  assert {
    condition     = azurerm_managed_redis.this.high_availability_enabled
    error_message = "Production needs a second copy."
  }
}

run "a_size_of_the_retired_product_is_refused" {
  command = plan

  variables {
    sku_name = "Premium_P1"
  }

  expect_failures = [var.sku_name]
}
