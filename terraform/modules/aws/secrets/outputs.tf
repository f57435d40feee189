output "arns" {
  description = "ARN of each entry by the secret's name."
  value       = { for name, secret in aws_secretsmanager_secret.this : name => secret.arn }
}
