output "vault_name" {
  description = "Name of the vault."
  value       = aws_backup_vault.this.name
}
