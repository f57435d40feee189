output "vault_id" {
  description = "Id of the vault."
  value       = azurerm_key_vault.this.id
}

output "vault_url" {
  description = "URL of the vault."
  value       = azurerm_key_vault.this.vault_uri
}
