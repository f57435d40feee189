output "brokers" {
  description = "Bootstrap servers of the IAM listener, host:9098 with commas between."
  value       = aws_msk_cluster.this.bootstrap_brokers_sasl_iam
}

output "arn" {
  description = "ARN of the cluster; those of its topics and groups are made from it."
  value       = aws_msk_cluster.this.arn
}

output "name" {
  description = "Name of the cluster in metrics."
  value       = aws_msk_cluster.this.cluster_name
}
