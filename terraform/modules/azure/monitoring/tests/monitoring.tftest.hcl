mock_provider "azurerm" {
  source = "../../../tests/mocks/azure"
}

variables {
  name                 = "isa-prod"
  location             = "westeurope"
  resource_group_name  = "isa-prod"
  unique               = "a1b2c3"
  resource_group_id    = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/isa-prod"
  subscription_id      = "/subscriptions/00000000-0000-0000-0000-000000000000"
  alarm_emails         = ["platform@example.com"]
  log_retention_days   = 365
  monthly_budget       = 6500
  network_id           = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/isa-prod/providers/Microsoft.Network/virtualNetworks/isa-prod"
  network_watcher_name = "NetworkWatcher_westeurope"
  server_id            = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/isa-prod/providers/Microsoft.DBforPostgreSQL/flexibleServers/isa-prod"
  redis_id             = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/isa-prod/providers/Microsoft.Cache/redisEnterprise/isa-prod-a1b2c3"
  namespace_id         = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/isa-prod/providers/Microsoft.EventHub/namespaces/isa-prod-a1b2c3"
  cluster_id           = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/isa-prod/providers/Microsoft.ContainerService/managedClusters/isa-prod"
}

run "every_managed_service_has_an_alert" {
  command = plan

  assert {
    condition     = toset([for alert in azurerm_monitor_metric_alert.this : one(alert.scopes)]) == toset([var.server_id, var.redis_id, var.namespace_id, var.cluster_id])
    error_message = "Each managed service must have its alerts."
  }
}

run "people_are_told_when_a_secret_is_due" {
  command = plan

  assert {
    condition     = strcontains(azurerm_monitor_scheduled_query_rules_alert_v2.this["secrets-due"].criteria[0].query, "SecretNearExpiryEventGridNotification") && azurerm_monitor_action_group.this.email_receiver[0].email_address == "platform@example.com"
    error_message = "A secret that nears its end must be told of."
  }
}

run "flows_are_written_down" {
  command = plan

  assert {
    condition     = azurerm_network_watcher_flow_log.this.enabled && azurerm_network_watcher_flow_log.this.target_resource_id == var.network_id && azurerm_network_watcher_flow_log.this.traffic_analytics[0].enabled
    error_message = "The network's flows must be logged."
  }
}

run "logs_are_kept_for_a_year" {
  command = plan

  assert {
    condition     = azurerm_log_analytics_workspace.this.retention_in_days == 365 && !azurerm_log_analytics_workspace.this.local_authentication_enabled
    error_message = "Production keeps its logs for a year."
  }
}

run "the_bill_is_watched" {
  command = plan

  assert {
    condition     = azurerm_consumption_budget_resource_group.this.amount == 6500 && length(azurerm_consumption_budget_resource_group.this.notification) == 4
    error_message = "The budget must tell at half, at four fifths, at all of it, and when it will not suffice."
  }
}

run "nobody_to_tell_is_refused" {
  command = plan

  variables {
    alarm_emails = []
  }

  expect_failures = [var.alarm_emails]
}

run "a_week_of_logs_is_refused" {
  command = plan

  variables {
    log_retention_days = 7
  }

  expect_failures = [var.log_retention_days]
}

run "no_budget_is_refused" {
  command = plan

  variables {
    monthly_budget = 0
  }

  expect_failures = [var.monthly_budget]
}
