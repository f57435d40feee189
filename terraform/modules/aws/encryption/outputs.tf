output "cluster_key_arn" {
  description = "Key of the Kubernetes secrets."
  value       = aws_kms_key.this["cluster"].arn
}

output "data_key_arn" {
  description = "Key of everything that is stored."
  value       = aws_kms_key.this["data"].arn
}

output "logs_key_arn" {
  description = "Key of log groups and of the alarms' topic."
  value       = aws_kms_key.this["logs"].arn
}
