output "loki_bucket" {
  description = "Bucket of Loki."
  value       = aws_s3_bucket.this["loki"].id
}

output "loki_bucket_arn" {
  description = "ARN of Loki's bucket."
  value       = aws_s3_bucket.this["loki"].arn
}

output "backup_bucket" {
  description = "Bucket of the backup jobs."
  value       = aws_s3_bucket.this["backups"].id
}

output "backup_bucket_arn" {
  description = "ARN of the backups' bucket."
  value       = aws_s3_bucket.this["backups"].arn
}
