output "platform" {
  description = "What terraform/contract.yaml names; all strings."
  value = {
    cloud                     = "gcp"
    region                    = var.region
    environment               = var.environment
    cluster_name              = module.cluster.name
    cluster_endpoint          = module.cluster.endpoint
    cluster_ca                = module.cluster.ca
    domain                    = var.domain
    dns_zone                  = module.dns_tls.zone
    kafka_brokers             = module.kafka.brokers
    kafka_username            = module.kafka.username
    postgres_host             = module.postgres.host
    postgres_port             = module.postgres.port
    postgres_admin_user       = module.postgres.admin_user
    postgres_admin_secret     = "${local.prefix}postgres-superuser"
    redis_host                = module.redis.host
    redis_port                = module.redis.port
    object_store_endpoint     = module.object_store.endpoint
    loki_bucket               = module.object_store.loki_bucket
    backup_bucket             = module.object_store.backup_bucket
    secret_store              = module.secrets.project
    secret_prefix             = local.prefix
    storage_class             = module.cluster.storage_class
    identity_services         = module.identity.emails["services"]
    identity_external_secrets = module.identity.emails["external-secrets"]
    identity_cert_manager     = module.identity.emails["cert-manager"]
    identity_external_dns     = module.identity.emails["external-dns"]
    identity_loki             = module.identity.emails["loki"]
    identity_backup           = module.identity.emails["backup"]
    waf_id                    = module.waf.policy
  }
}
