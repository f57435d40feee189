output "role_arns" {
  description = "ARN of each role that a chart annotates: services, external-secrets, cert-manager, external-dns, loki, backup."
  value       = { for name in keys(local.annotated) : name => aws_iam_role.this[name].arn }
}
