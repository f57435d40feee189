output "loki_bucket" {
  description = "Bucket of Loki."
  value       = module.bucket["loki"].id
}

output "loki_bucket_arn" {
  description = "ARN of Loki's bucket."
  value       = module.bucket["loki"].arn
}

output "backup_bucket" {
  description = "Bucket of the backup jobs."
  value       = module.bucket["backups"].id
}

output "backup_bucket_arn" {
  description = "ARN of the backups' bucket."
  value       = module.bucket["backups"].arn
}
