# What the cloud sees and Prometheus inside the cluster does not: managed services, flows, the bill.

locals {
  alerts = {
    postgres-cpu         = { what = "PostgreSQL uses more than 80 % of its processors", scope = var.server_id, namespace = "Microsoft.DBforPostgreSQL/flexibleServers", metric = "cpu_percent", aggregation = "Average", threshold = 80 }
    postgres-memory      = { what = "PostgreSQL uses more than 90 % of its memory", scope = var.server_id, namespace = "Microsoft.DBforPostgreSQL/flexibleServers", metric = "memory_percent", aggregation = "Average", threshold = 90 }
    postgres-disk        = { what = "PostgreSQL's disk is fuller than 80 %", scope = var.server_id, namespace = "Microsoft.DBforPostgreSQL/flexibleServers", metric = "storage_percent", aggregation = "Maximum", threshold = 80 }
    postgres-connections = { what = "PostgreSQL refused connections", scope = var.server_id, namespace = "Microsoft.DBforPostgreSQL/flexibleServers", metric = "connections_failed", aggregation = "Total", threshold = 20 }
    redis-memory         = { what = "Redis uses more than 80 % of its memory; full, it refuses writes", scope = var.redis_id, namespace = "Microsoft.Cache/redisEnterprise", metric = "usedmemorypercentage", aggregation = "Maximum", threshold = 80 }
    kafka-throttled      = { what = "Event Hubs throttles: it wants more processing units", scope = var.namespace_id, namespace = "Microsoft.EventHub/namespaces", metric = "ThrottledRequests", aggregation = "Total", threshold = 0 }
    kafka-errors         = { what = "Event Hubs fails by its own fault", scope = var.namespace_id, namespace = "Microsoft.EventHub/namespaces", metric = "ServerErrors", aggregation = "Total", threshold = 0 }
    nodes-disk           = { what = "A node's disk is fuller than 80 %", scope = var.cluster_id, namespace = "Microsoft.ContainerService/managedClusters", metric = "node_disk_usage_percentage", aggregation = "Maximum", threshold = 80 }
  }
  queries = {
    secrets-due = {
      what  = "Secrets end within 30 days, or have ended: give them new values"
      query = "AzureDiagnostics | where ResourceProvider == 'MICROSOFT.KEYVAULT' and OperationName in ('SecretNearExpiryEventGridNotification', 'SecretExpiredEventGridNotification')"
      hours = 24
    }
  }
}

resource "azurerm_log_analytics_workspace" "this" {
  name                         = var.name
  location                     = var.location
  resource_group_name          = var.resource_group_name
  sku                          = "PerGB2018"
  retention_in_days            = var.log_retention_days
  local_authentication_enabled = false
}

resource "azurerm_monitor_action_group" "this" {
  name                = var.name
  resource_group_name = var.resource_group_name
  short_name          = substr(replace(var.name, "-", ""), 0, 12)

  dynamic "email_receiver" {
    for_each = var.alarm_emails

    content {
      name                    = email_receiver.value
      email_address           = email_receiver.value
      use_common_alert_schema = true
    }
  }
}

resource "azurerm_monitor_metric_alert" "this" {
  for_each = local.alerts

  name                = each.key
  resource_group_name = var.resource_group_name
  description         = each.value.what
  scopes              = [each.value.scope]
  severity            = 2
  frequency           = "PT5M"
  window_size         = "PT15M"

  criteria {
    metric_namespace = each.value.namespace
    metric_name      = each.value.metric
    aggregation      = each.value.aggregation
    operator         = "GreaterThan"
    threshold        = each.value.threshold
  }

  action {
    action_group_id = azurerm_monitor_action_group.this.id
  }
}

resource "azurerm_monitor_scheduled_query_rules_alert_v2" "this" {
  for_each = local.queries

  name                 = each.key
  location             = var.location
  resource_group_name  = var.resource_group_name
  description          = each.value.what
  scopes               = [azurerm_log_analytics_workspace.this.id]
  severity             = 3
  evaluation_frequency = each.value.hours == 24 ? "P1D" : "PT${each.value.hours}H"
  window_duration      = each.value.hours == 24 ? "P1D" : "PT${each.value.hours}H"

  criteria {
    query                   = each.value.query
    time_aggregation_method = "Count"
    operator                = "GreaterThan"
    threshold               = 0
  }

  action {
    action_groups = [azurerm_monitor_action_group.this.id]
  }
}

resource "azurerm_monitor_activity_log_alert" "service_health" {
  name                = "service-health"
  location            = "global"
  resource_group_name = var.resource_group_name
  description         = "Azure has trouble in our region, or will have"
  scopes              = [var.subscription_id]

  criteria {
    category = "ServiceHealth"

    service_health {
      events    = ["Incident", "Maintenance", "Security"]
      locations = [var.location, "Global"]
    }
  }

  action {
    action_group_id = azurerm_monitor_action_group.this.id
  }
}

# --- Flows of the network

resource "azurerm_storage_account" "flows" {
  #checkov:skip=CKV_AZURE_33:There are no queues in this account
  #checkov:skip=CKV_AZURE_59:The firewall refuses everybody but Azure's own trusted services
  #checkov:skip=CKV_AZURE_206:Flows are not worth a copy in another region
  #checkov:skip=CKV2_AZURE_1:Flows are addresses and counts, encrypted by Azure's keys
  #checkov:skip=CKV2_AZURE_33:Nobody of ours reads here: traffic analytics shows the flows
  #checkov:skip=CKV2_AZURE_40:The network watcher writes with the account's key
  #checkov:skip=CKV2_AZURE_41:Nobody is given access signatures here
  name                              = "${replace(var.name, "-", "")}flow${var.unique}"
  location                          = var.location
  resource_group_name               = var.resource_group_name
  account_tier                      = "Standard"
  account_kind                      = "StorageV2"
  account_replication_type          = "ZRS"
  min_tls_version                   = "TLS1_2"
  https_traffic_only_enabled        = true
  allow_nested_items_to_be_public   = false
  cross_tenant_replication_enabled  = false
  local_user_enabled                = false
  infrastructure_encryption_enabled = true

  network_rules {
    default_action = "Deny"
    bypass         = ["AzureServices"]
  }

  blob_properties {
    delete_retention_policy {
      days = 7
    }
  }
}

resource "azurerm_network_watcher_flow_log" "this" {
  name                 = var.name
  location             = var.location
  network_watcher_name = var.network_watcher_name
  resource_group_name  = "NetworkWatcherRG" # both are Azure's own
  target_resource_id   = var.network_id
  storage_account_id   = azurerm_storage_account.flows.id
  enabled              = true
  version              = 2

  retention_policy {
    enabled = true
    days    = 90
  }

  traffic_analytics {
    enabled               = true
    interval_in_minutes   = 60
    workspace_id          = azurerm_log_analytics_workspace.this.workspace_id
    workspace_region      = var.location
    workspace_resource_id = azurerm_log_analytics_workspace.this.id
  }
}

resource "azurerm_consumption_budget_resource_group" "this" {
  name              = var.name
  resource_group_id = var.resource_group_id
  amount            = var.monthly_budget
  time_grain        = "Monthly"

  time_period {
    start_date = formatdate("YYYY-MM-01'T'00:00:00Z", plantimestamp())
  }

  dynamic "notification" {
    for_each = { "50" = "Actual", "80" = "Actual", "100" = "Actual", "110" = "Forecasted" }

    content {
      operator       = "GreaterThan"
      threshold      = tonumber(notification.key)
      threshold_type = notification.value
      contact_emails = var.alarm_emails
    }
  }

  lifecycle {
    ignore_changes = [time_period] # counted from the month of the first day
  }
}
