resource "azurerm_storage_account" "this" {
  #checkov:skip=CKV_AZURE_33:There are no queues in this account
  #checkov:skip=CKV_AZURE_59:The firewall refuses everybody but operators and Azure's own trusted services
  #checkov:skip=CKV_AZURE_206:Copies over the zones everywhere, in the paired region where the environment keeps copies
  #checkov:skip=CKV2_AZURE_41:There are no shared keys, so nothing could sign an access signature but Entra's
  name                              = "${replace(var.name, "-", "")}${var.unique}"
  location                          = var.location
  resource_group_name               = var.resource_group_name
  account_tier                      = "Standard"
  account_kind                      = "StorageV2"
  account_replication_type          = var.has_copies ? "RAGZRS" : "ZRS"
  access_tier                       = "Hot"
  min_tls_version                   = "TLS1_2"
  https_traffic_only_enabled        = true
  shared_access_key_enabled         = false # Entra's identities only
  default_to_oauth_authentication   = true
  allow_nested_items_to_be_public   = false
  cross_tenant_replication_enabled  = false
  local_user_enabled                = false
  allowed_copy_scope                = "AAD"
  infrastructure_encryption_enabled = true
  public_network_access_enabled     = true # for operators, by the rules below; pods come by the private endpoint

  network_rules {
    default_action = "Deny"
    bypass         = ["AzureServices", "Logging", "Metrics"]
    ip_rules       = var.operator_cidrs
  }

  blob_properties {
    versioning_enabled            = true
    change_feed_enabled           = true
    change_feed_retention_in_days = var.backup_days

    delete_retention_policy {
      days = 30
    }

    container_delete_retention_policy {
      days = 30
    }
  }

  identity {
    type         = "UserAssigned"
    identity_ids = [var.key.identity_id]
  }

  customer_managed_key {
    key_vault_key_id          = var.key.id
    user_assigned_identity_id = var.key.identity_id
  }

  lifecycle {
    prevent_destroy = true
  }
}

resource "azurerm_storage_container" "this" {
  #checkov:skip=CKV2_AZURE_21:Reads are logged by the diagnostic setting of the whole account
  for_each = toset(["loki", "backup"])

  name                  = each.key
  storage_account_id    = azurerm_storage_account.this.id
  container_access_type = "private"
}

resource "azurerm_storage_management_policy" "this" {
  storage_account_id = azurerm_storage_account.this.id

  dynamic "rule" {
    for_each = { loki = var.loki_days, "backup/replaced" = var.backup_days } # what the jobs still write on to stays, however old

    content {
      name    = replace(rule.key, "/", "-")
      enabled = true

      filters {
        blob_types   = ["blockBlob"]
        prefix_match = ["${rule.key}/"]
      }

      actions {
        base_blob {
          delete_after_days_since_modification_greater_than = rule.value
        }
      }
    }
  }

  dynamic "rule" {
    for_each = { loki = 7, backup = var.backup_days }

    content {
      name    = "${rule.key}-versions"
      enabled = true

      filters {
        blob_types   = ["blockBlob"]
        prefix_match = ["${rule.key}/"]
      }

      actions {
        version {
          delete_after_days_since_creation = rule.value
        }
      }
    }
  }
}

resource "azurerm_private_endpoint" "this" {
  name                = "${var.name}-objects"
  location            = var.location
  resource_group_name = var.resource_group_name
  subnet_id           = var.subnet_id

  private_service_connection {
    name                           = "objects"
    private_connection_resource_id = azurerm_storage_account.this.id
    subresource_names              = ["blob"]
    is_manual_connection           = false
  }

  private_dns_zone_group {
    name                 = "objects"
    private_dns_zone_ids = [var.private_zone_id]
  }
}

resource "azurerm_monitor_diagnostic_setting" "this" {
  name                       = "logs"
  target_resource_id         = "${azurerm_storage_account.this.id}/blobServices/default"
  log_analytics_workspace_id = var.log_workspace_id

  dynamic "enabled_log" {
    for_each = ["StorageRead", "StorageWrite", "StorageDelete"]

    content {
      category = enabled_log.value
    }
  }
}
