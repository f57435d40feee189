output "vault_id" {
  description = "Id of the backup vault."
  value       = azurerm_data_protection_backup_vault.this.id
}
