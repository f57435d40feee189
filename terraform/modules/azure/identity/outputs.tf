output "client_ids" {
  description = "Client id of each workload's identity."
  value       = { for workload, identity in azurerm_user_assigned_identity.this : workload => identity.client_id }
}
