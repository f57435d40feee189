output "host" {
  description = "Host of the primary; follows a failover."
  value       = aws_elasticache_replication_group.this.primary_endpoint_address
}

output "port" {
  description = "Port, TLS."
  value       = aws_elasticache_replication_group.this.port
}

output "user_id" {
  description = "ElastiCache's id of the login whose password is set after the first apply."
  value       = aws_elasticache_user.default.user_id
}

output "node_ids" {
  description = "Names of the nodes in metrics."
  value       = [for i in range(var.nodes) : format("%s-%03d", aws_elasticache_replication_group.this.replication_group_id, i + 1)]
}
