resource "azurerm_managed_redis" "this" {
  name                      = "${var.name}-${var.unique}"
  location                  = var.location
  resource_group_name       = var.resource_group_name
  sku_name                  = var.sku_name
  high_availability_enabled = var.high_availability
  public_network_access     = "Disabled"

  default_database {
    access_keys_authentication_enabled          = true # the rooms log in with a password, as everywhere
    client_protocol                             = "Encrypted"
    clustering_policy                           = "NoCluster"  # one address, and commands over several keys
    eviction_policy                             = "NoEviction" # a full cache refuses writes, which the rooms expect
    persistence_redis_database_backup_frequency = "1h"
  }

  identity {
    type         = "UserAssigned"
    identity_ids = [var.key.identity_id]
  }

  customer_managed_key {
    key_vault_key_id          = var.key.versioned_id
    user_assigned_identity_id = var.key.identity_id
  }

  lifecycle {
    prevent_destroy = true
  }
}

resource "azurerm_private_endpoint" "this" {
  name                = "${var.name}-redis"
  location            = var.location
  resource_group_name = var.resource_group_name
  subnet_id           = var.subnet_id

  private_service_connection {
    name                           = "redis"
    private_connection_resource_id = azurerm_managed_redis.this.id
    subresource_names              = ["redisEnterprise"]
    is_manual_connection           = false
  }

  private_dns_zone_group {
    name                 = "redis"
    private_dns_zone_ids = [var.private_zone_id]
  }
}

resource "azurerm_monitor_diagnostic_setting" "this" {
  name                       = "logs"
  target_resource_id         = azurerm_managed_redis.this.default_database[0].id
  log_analytics_workspace_id = var.log_workspace_id

  enabled_log {
    category = "ConnectionEvents"
  }
}
