output "log_workspace_id" {
  description = "Id of the Log Analytics workspace."
  value       = azurerm_log_analytics_workspace.this.id
}

output "action_group_id" {
  description = "Id of the group that hears of alarms."
  value       = azurerm_monitor_action_group.this.id
}
