# Kafka's protocol by Event Hubs. The Standard tier has 10 event hubs a namespace, keeps records for 7 days and knows no keys of
# ours; we have more topics than that with their dead letters, some kept for 30 days. So it is Premium everywhere.

resource "azurerm_eventhub_namespace" "this" {
  name                          = "${var.name}-${var.unique}"
  location                      = var.location
  resource_group_name           = var.resource_group_name
  sku                           = "Premium"
  capacity                      = var.processing_units
  minimum_tls_version           = "1.2"
  public_network_access_enabled = false
  local_authentication_enabled  = true # Dapr's Kafka component logs in with SASL/PLAIN: it has no Entra identity of a pod

  identity {
    type         = "UserAssigned"
    identity_ids = [var.key.identity_id]
  }

  lifecycle {
    prevent_destroy = true # with the namespace go its topics
  }
}

resource "azurerm_eventhub_namespace_customer_managed_key" "this" {
  eventhub_namespace_id             = azurerm_eventhub_namespace.this.id
  key_vault_key_ids                 = [var.key.id]
  user_assigned_identity_id         = var.key.identity_id
  infrastructure_encryption_enabled = true
}

resource "azurerm_eventhub" "this" {
  for_each = var.topics

  name            = each.key
  namespace_id    = azurerm_eventhub_namespace.this.id
  partition_count = each.value.partitions

  retention_description {
    cleanup_policy                    = each.value.config["cleanup.policy"] == "compact" ? "Compact" : "Delete"
    retention_time_in_hours           = each.value.config["cleanup.policy"] == "compact" ? null : tonumber(each.value.config["retention.ms"]) / 3600000
    tombstone_retention_time_in_hours = each.value.config["cleanup.policy"] == "compact" ? 24 : null
  }

  lifecycle {
    prevent_destroy = true # with the topic go its records
  }

  depends_on = [azurerm_eventhub_namespace_customer_managed_key.this]
}

resource "azurerm_eventhub_namespace_authorization_rule" "services" {
  name                = "services"
  namespace_name      = azurerm_eventhub_namespace.this.name
  resource_group_name = var.resource_group_name
  listen              = true
  send                = true
  manage              = false # topics are Terraform's
}

resource "azurerm_private_endpoint" "this" {
  name                = "${var.name}-kafka"
  location            = var.location
  resource_group_name = var.resource_group_name
  subnet_id           = var.subnet_id

  private_service_connection {
    name                           = "kafka"
    private_connection_resource_id = azurerm_eventhub_namespace.this.id
    subresource_names              = ["namespace"]
    is_manual_connection           = false
  }

  private_dns_zone_group {
    name                 = "kafka"
    private_dns_zone_ids = [var.private_zone_id]
  }
}

resource "azurerm_monitor_diagnostic_setting" "this" {
  name                       = "logs"
  target_resource_id         = azurerm_eventhub_namespace.this.id
  log_analytics_workspace_id = var.log_workspace_id

  dynamic "enabled_log" {
    for_each = ["KafkaCoordinatorLogs", "KafkaUserErrorLogs", "OperationalLogs", "RuntimeAuditLogs"]

    content {
      category = enabled_log.value
    }
  }
}
