locals {
  # What the local set runs with, where Azure lets us say it, and what an auditor asks for.
  settings = {
    require_secure_transport            = "on"
    ssl_min_protocol_version            = "TLSv1.2"
    jit                                 = "off"
    max_locks_per_transaction           = "256"     # a schema a tenant
    idle_in_transaction_session_timeout = "60000"   # ms
    temp_file_limit                     = "1048576" # kB: one tenant's sort must not fill the disk
    log_checkpoints                     = "on"
    log_connections                     = "on"
    log_disconnections                  = "on"
    log_lock_waits                      = "on"
    log_statement                       = "ddl"
    log_min_duration_statement          = "1000" # ms
    "connection_throttle.enable"        = "on"
  }
}

resource "azurerm_postgresql_flexible_server" "this" {
  #checkov:skip=CKV_AZURE_136:Where an environment keeps copies (production), backups are geo-redundant
  #checkov:skip=CKV2_AZURE_57:It lives in our subnet, which is more private than an endpoint
  name                          = var.name
  location                      = var.location
  resource_group_name           = var.resource_group_name
  version                       = var.engine_version
  sku_name                      = var.sku_name
  storage_mb                    = var.storage_mb
  auto_grow_enabled             = true
  zone                          = "1"
  delegated_subnet_id           = var.subnet_id
  private_dns_zone_id           = var.private_zone_id
  public_network_access_enabled = false
  backup_retention_days         = var.backup_days
  geo_redundant_backup_enabled  = var.geo_key != null

  administrator_login               = var.admin_user
  administrator_password_wo         = var.admin_password
  administrator_password_wo_version = var.admin_password_version

  dynamic "high_availability" {
    for_each = var.high_availability ? ["2"] : []

    content {
      mode                      = "ZoneRedundant"
      standby_availability_zone = high_availability.value
    }
  }

  identity {
    type         = "UserAssigned"
    identity_ids = compact([var.key.identity_id, try(var.geo_key.identity_id, "")])
  }

  customer_managed_key {
    key_vault_key_id                     = var.key.id
    primary_user_assigned_identity_id    = var.key.identity_id
    geo_backup_key_vault_key_id          = try(var.geo_key.id, null)
    geo_backup_user_assigned_identity_id = try(var.geo_key.identity_id, null)
  }

  maintenance_window {
    day_of_week  = 0
    start_hour   = 3
    start_minute = 0
  }

  lifecycle {
    prevent_destroy = true
    # It grows by itself, and after a failover the standby is the primary.
    ignore_changes = [storage_mb, zone, high_availability[0].standby_availability_zone]
  }
}

resource "azurerm_postgresql_flexible_server_configuration" "this" {
  for_each = local.settings

  server_id = azurerm_postgresql_flexible_server.this.id
  name      = each.key
  value     = each.value
}

resource "azurerm_monitor_diagnostic_setting" "this" {
  name                       = "logs"
  target_resource_id         = azurerm_postgresql_flexible_server.this.id
  log_analytics_workspace_id = var.log_workspace_id

  enabled_log {
    category = "PostgreSQLLogs"
  }
}
