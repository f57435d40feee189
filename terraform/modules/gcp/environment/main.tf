# One environment in one project: every module of this folder, and what one hands to the other.

locals {
  name       = "isa-${var.environment}"
  prefix     = "isa-${var.environment}-"
  has_copies = var.replica_region != ""

  # Written once elsewhere: who publishes and reads which topic. Every service does.
  kafka    = yamldecode(file("${path.module}/../../../../charts/derived/topics.yaml"))
  topics   = local.kafka.topics
  services = toset(keys(local.kafka.users))

  # Values that this cloud makes; all others come from `isa` (terraform/README.md, "First secrets").
  made = {
    postgres-superuser = var.credential_versions.postgres
    kafka-password     = var.credential_versions.kafka
    redis-password     = var.credential_versions.redis
    redis-ca           = var.credential_versions.redis
  }
}

module "encryption" {
  source = "../encryption"

  name             = local.name
  region           = var.region
  replica_region   = var.replica_region
  multi_region     = var.multi_region
  protection_level = var.is_protected ? "HSM" : "SOFTWARE"
}

module "network" {
  source = "../network"

  name          = local.name
  region        = var.region
  cidrs         = var.cidrs
  nat_addresses = var.is_protected ? 2 : 1
}

module "cluster" {
  source = "../cluster"

  name                = local.name
  region              = var.region
  network             = module.network.network
  subnetwork          = module.network.nodes_subnetwork
  control_plane_cidr  = var.cidrs.control_plane
  authorized_networks = var.authorized_networks
  release_channel     = var.release_channel
  node_pools          = var.node_pools
  cluster_key         = module.encryption.keys["cluster"]
  disk_key            = module.encryption.keys["disks"]
  deletion_protection = var.is_protected
}

module "postgres" {
  source = "../postgres"

  name                   = local.name
  region                 = var.region
  network                = module.network.peered_network
  tier                   = var.postgres.tier
  disk_gb                = var.postgres.disk_gb
  high_availability      = var.is_protected
  backup_days            = var.backup_days
  key                    = module.encryption.keys["postgres"]
  replica                = local.has_copies ? { region = var.replica_region, key = module.encryption.keys["postgres-replica"] } : null
  admin_user             = "isa"
  admin_password         = var.postgres_admin_password
  admin_password_version = var.credential_versions.postgres
  deletion_protection    = var.is_protected
}

module "kafka" {
  source = "../kafka"

  name               = local.name
  region             = var.region
  subnetwork         = module.network.nodes_subnetwork
  vcpus              = var.kafka.vcpus
  memory_gb          = var.kafka.memory_gb
  key                = module.encryption.keys["kafka"]
  topics             = local.topics
  client             = module.identity.emails["services"]
  credential_version = var.credential_versions.kafka
}

module "redis" {
  source = "../redis"

  name              = local.name
  region            = var.region
  network           = module.network.peered_network
  high_availability = var.is_protected
  memory_gb         = var.redis_gb
  key               = module.encryption.keys["redis"]
}

module "object_store" {
  source = "../object-store"

  name           = local.name
  region         = var.region
  replica_region = var.replica_region
  multi_region   = var.multi_region
  key            = module.encryption.keys["objects"]
  backup_key     = module.encryption.keys[local.has_copies ? "objects-replica" : "objects"]
  loki_days      = var.loki_days
  backup_days    = var.backup_days
}

module "secrets" {
  source = "../secrets"

  name           = local.name
  prefix         = local.prefix
  secret_names   = setunion(var.secret_names, keys(local.made))
  value_versions = local.made
  rotation_days  = 90
  topics_key     = module.encryption.keys["topics"]

  keys = merge(
    { (var.region) = module.encryption.keys["secrets"] },
    local.has_copies ? { (var.replica_region) = module.encryption.keys["secrets-replica"] } : {},
  )

  values = {
    postgres-superuser = var.postgres_admin_password
    kafka-password     = module.kafka.password
    redis-password     = module.redis.password
    redis-ca           = module.redis.ca
  }
}

module "dns_tls" {
  source = "../dns-tls"

  name   = local.name
  domain = var.domain
}

module "identity" {
  source = "../identity"

  name          = local.name
  workload_pool = module.cluster.workload_pool
  services      = local.services
  secret_prefix = local.prefix
  dns_zone      = module.dns_tls.zone
  loki_bucket   = module.object_store.loki_bucket
  backup_bucket = module.object_store.backup_bucket
}

module "backup" {
  source = "../backup"

  name        = local.name
  location    = local.has_copies ? var.replica_region : var.region
  cluster_id  = module.cluster.id
  retain_days = var.backup_days
  lock_days   = var.is_protected ? 7 : 0
  key         = module.encryption.keys[local.has_copies ? "backup-replica" : "backup"]
}

module "waf" {
  source = "../waf"

  name                = local.name
  requests_per_minute = 1200
  is_preview          = !var.is_protected
}

module "monitoring" {
  source = "../monitoring"

  name                  = local.name
  alarm_emails          = var.alarm_emails
  postgres_instance     = module.postgres.instance
  redis_instance        = module.redis.instance
  rotation_subscription = module.secrets.rotation_subscription
  log_days              = var.log_days
  billing_account       = var.billing_account
  monthly_budget        = var.monthly_budget
}
