output "backend" {
  description = "The file backend.hcl of live/azure/<env>."
  value       = <<-EOT
    resource_group_name  = "${azurerm_resource_group.this.name}"
    storage_account_name = "${azurerm_storage_account.state.name}"
    container_name       = "${azurerm_storage_container.state.name}"
  EOT
}

output "client_ids" {
  description = "Identities of the CI: plan on pull requests, apply in the environment."
  value       = { for name, identity in azurerm_user_assigned_identity.ci : name => identity.client_id }
}
