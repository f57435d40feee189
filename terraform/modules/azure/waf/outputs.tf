output "policy_id" {
  description = "Id of the policy."
  value       = azurerm_web_application_firewall_policy.this.id
}
