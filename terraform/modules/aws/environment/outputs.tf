output "platform" {
  description = "What terraform/contract.yaml names; all strings."
  value = {
    cloud                     = "aws"
    region                    = data.aws_region.current.name
    environment               = var.environment
    cluster_name              = module.cluster.name
    cluster_endpoint          = module.cluster.endpoint
    cluster_ca                = module.cluster.ca
    domain                    = var.domain
    dns_zone                  = module.dns_tls.zone_id
    kafka_brokers             = module.kafka.brokers
    kafka_username            = ""
    postgres_host             = module.postgres.host
    postgres_port             = tostring(module.postgres.port)
    postgres_admin_user       = module.postgres.admin_user
    postgres_admin_secret     = module.postgres.admin_secret_arn
    redis_host                = module.redis.host
    redis_port                = tostring(module.redis.port)
    object_store_endpoint     = "https://s3.${data.aws_region.current.name}.amazonaws.com"
    loki_bucket               = module.object_store.loki_bucket
    backup_bucket             = module.object_store.backup_bucket
    secret_store              = data.aws_region.current.name
    secret_prefix             = local.secret_prefix
    storage_class             = "gp3"
    identity_services         = module.identity.role_arns["services"]
    identity_external_secrets = module.identity.role_arns["external-secrets"]
    identity_cert_manager     = module.identity.role_arns["cert-manager"]
    identity_external_dns     = module.identity.role_arns["external-dns"]
    identity_loki             = module.identity.role_arns["loki"]
    identity_backup           = module.identity.role_arns["backup"]
    waf_id                    = module.waf.arn
  }
}

output "postgres_arn" {
  description = "ARN of the database, whose backups a second region copies."
  value       = module.postgres.arn
}
