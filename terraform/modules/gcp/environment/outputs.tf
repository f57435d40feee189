output "cloud" {
  description = "Which cloud this is: aws, gcp or azure"
  value       = "gcp"
}

output "region" {
  description = "The cloud's own name of the region that everything runs in"
  value       = var.region
}

output "environment" {
  description = "dev, staging or prod"
  value       = var.environment
}

output "cluster_name" {
  description = "Name of the Kubernetes cluster"
  value       = module.cluster.cluster_name
}

output "cluster_endpoint" {
  description = "URL of the Kubernetes API; the cluster Secret's `server`"
  value       = module.cluster.cluster_endpoint
}

output "cluster_ca" {
  description = "Certificate of the Kubernetes API's authority, PEM in base64; the cluster Secret's `caData`"
  value       = module.cluster.cluster_ca
}

output "domain" {
  description = "Domain that the environment answers under: api.<domain>, objects.<domain>"
  value       = module.dns_tls.domain
}

output "dns_zone" {
  description = "Zone that external-dns writes: hosted zone id (aws), managed zone name (gcp), resource id (azure)"
  value       = module.dns_tls.dns_zone
}

output "kafka_brokers" {
  description = "Kafka's bootstrap servers, host:port with commas between, TLS"
  value       = module.kafka.kafka_brokers
}

output "kafka_username" {
  description = "SASL user name; empty on aws, where the identity is IAM's; $ConnectionString on azure"
  value       = module.kafka.kafka_username
}

output "postgres_host" {
  description = "Host of PostgreSQL's writer"
  value       = module.postgres.postgres_host
}

output "postgres_port" {
  description = "Port of PostgreSQL"
  value       = module.postgres.postgres_port
}

output "postgres_admin_user" {
  description = "The administrator that makes databases and roles; no true superuser on any cloud"
  value       = module.postgres.postgres_admin_user
}

output "postgres_admin_secret" {
  description = "Entry of the secret store with the administrator's password; on aws RDS keeps and rotates it, as JSON with the key `password`; else <secret_prefix>postgres-superuser, plain"
  value       = "${local.prefix}postgres-superuser"
}

output "redis_host" {
  description = "Host of Redis, TLS"
  value       = module.redis.redis_host
}

output "redis_port" {
  description = "Port of Redis"
  value       = module.redis.redis_port
}

output "object_store_endpoint" {
  description = "Endpoint of the cloud's own object store, which Loki and the backups use"
  value       = module.object_store.object_store_endpoint
}

output "loki_bucket" {
  description = "Bucket (container on azure) of Loki's chunks and index"
  value       = module.object_store.loki_bucket
}

output "backup_bucket" {
  description = "Bucket (container on azure) that the backup jobs write"
  value       = module.object_store.backup_bucket
}

output "secret_store" {
  description = "Where the secret store is: region (aws), project (gcp), vault URL (azure)"
  value       = module.secrets.secret_store
}

output "secret_prefix" {
  description = "What an entry's name begins with: isa-<env>-"
  value       = local.prefix
}

output "storage_class" {
  description = "Storage class of encrypted SSD volumes"
  value       = module.cluster.storage_class
}

output "identity_services" {
  description = "Cloud identity of the services' pods in isa-cloud: role ARN (aws), service account e-mail (gcp), client id (azure)"
  value       = module.identity.identity_services
}

output "identity_external_secrets" {
  description = "Cloud identity of external-secrets"
  value       = module.identity.identity_external_secrets
}

output "identity_cert_manager" {
  description = "Cloud identity of cert-manager, which solves DNS challenges"
  value       = module.identity.identity_cert_manager
}

output "identity_external_dns" {
  description = "Cloud identity of external-dns"
  value       = module.identity.identity_external_dns
}

output "identity_loki" {
  description = "Cloud identity of Loki"
  value       = module.identity.identity_loki
}

output "identity_backup" {
  description = "Cloud identity of the backup jobs"
  value       = module.identity.identity_backup
}

output "waf_id" {
  description = "The web application firewall that the edge's load balancer attaches; empty where the edge has none"
  value       = module.waf.waf_id
}
