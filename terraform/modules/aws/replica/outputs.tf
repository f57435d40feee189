output "bucket_arn" {
  description = "Where the backups' bucket is copied to."
  value       = module.bucket.arn
}

output "key_arn" {
  description = "Key of the copies."
  value       = aws_kms_key.this.arn
}

output "vault_arn" {
  description = "Where AWS Backup copies to."
  value       = aws_backup_vault.this.arn
}
