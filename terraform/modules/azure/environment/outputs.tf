output "platform" {
  description = "What terraform/contract.yaml names; all strings."
  value = {
    cloud                     = "azure"
    region                    = var.location
    environment               = var.environment
    cluster_name              = module.cluster.name
    cluster_endpoint          = module.cluster.endpoint
    cluster_ca                = module.cluster.ca
    domain                    = var.domain
    dns_zone                  = module.dns_tls.zone_id
    kafka_brokers             = module.kafka.brokers
    kafka_username            = module.kafka.username
    postgres_host             = module.postgres.host
    postgres_port             = module.postgres.port
    postgres_admin_user       = module.postgres.admin_user
    postgres_admin_secret     = "${local.prefix}postgres-superuser"
    redis_host                = module.redis.host
    redis_port                = module.redis.port
    object_store_endpoint     = module.object_store.endpoint
    loki_bucket               = module.object_store.containers["loki"]
    backup_bucket             = module.object_store.containers["backup"]
    secret_store              = module.secrets.vault_url
    secret_prefix             = local.prefix
    storage_class             = module.cluster.storage_class
    identity_services         = module.identity.client_ids["services"]
    identity_external_secrets = module.identity.client_ids["external-secrets"]
    identity_cert_manager     = module.identity.client_ids["cert-manager"]
    identity_external_dns     = module.identity.client_ids["external-dns"]
    identity_loki             = module.identity.client_ids["loki"]
    identity_backup           = module.identity.client_ids["backup"]
    waf_id                    = module.waf.policy_id
  }
}
