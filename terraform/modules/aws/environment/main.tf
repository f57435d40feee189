# One environment on AWS, put together once: network, then cluster and stores, then who may use what. terraform/live/aws/<env> gives
# the sizes.

data "aws_region" "current" {}

locals {
  name          = "isa-${var.environment}"
  is_protected  = var.environment != "dev" # dev is there to be thrown away
  secret_prefix = "${local.name}-"
  tags          = { "isa-cloud.io/environment" = var.environment }
}

module "encryption" {
  source = "../encryption"

  name = local.name
}

module "network" {
  source = "../network"

  name               = local.name
  cidr               = var.cidr
  zones              = var.zones
  nat_per_zone       = var.nat_per_zone
  log_retention_days = var.log_retention_days
  logs_key_arn       = module.encryption.logs_key_arn
}

module "cluster" {
  source = "../cluster"

  name                = local.name
  private_subnet_ids  = module.network.private_subnet_ids
  public_access_cidrs = var.public_access_cidrs
  administrators      = var.administrators
  node_groups         = var.node_groups
  node_tags           = local.tags
  log_retention_days  = var.log_retention_days
  cluster_key_arn     = module.encryption.cluster_key_arn
  logs_key_arn        = module.encryption.logs_key_arn
}

module "postgres" {
  source = "../postgres"

  name                      = local.name
  instance_class            = var.postgres.instance_class
  multi_az                  = var.postgres.multi_az
  storage_gib               = var.postgres.storage_gib
  max_storage_gib           = var.postgres.max_storage_gib
  backup_days               = var.backup_days
  is_protected              = local.is_protected
  log_retention_days        = var.log_retention_days
  vpc_id                    = module.network.vpc_id
  subnet_ids                = module.network.database_subnet_ids
  cluster_security_group_id = module.cluster.security_group_id
  data_key_arn              = module.encryption.data_key_arn
  logs_key_arn              = module.encryption.logs_key_arn
}

module "kafka" {
  source = "../kafka"

  name                      = local.name
  instance_type             = var.kafka.instance_type
  volume_gib                = var.kafka.volume_gib
  max_volume_gib            = var.kafka.max_volume_gib
  log_retention_days        = var.log_retention_days
  vpc_id                    = module.network.vpc_id
  subnet_ids                = module.network.database_subnet_ids
  cluster_security_group_id = module.cluster.security_group_id
  data_key_arn              = module.encryption.data_key_arn
  logs_key_arn              = module.encryption.logs_key_arn
}

module "redis" {
  source = "../redis"

  name                      = local.name
  node_type                 = var.redis.node_type
  nodes                     = var.redis.nodes
  snapshot_days             = min(var.backup_days, 35)
  is_protected              = local.is_protected
  log_retention_days        = var.log_retention_days
  vpc_id                    = module.network.vpc_id
  subnet_ids                = module.network.database_subnet_ids
  cluster_security_group_id = module.cluster.security_group_id
  data_key_arn              = module.encryption.data_key_arn
  logs_key_arn              = module.encryption.logs_key_arn
}

module "object_store" {
  source = "../object-store"

  name            = local.name
  loki_days       = var.loki_days
  backup_days     = var.backup_days
  access_log_days = var.log_retention_days
  is_protected    = local.is_protected
  replica         = var.replica
  data_key_arn    = module.encryption.data_key_arn
}

module "secrets" {
  source = "../secrets"

  name         = local.name
  prefix       = local.secret_prefix
  secret_names = var.secret_names
  is_protected = local.is_protected
  data_key_arn = module.encryption.data_key_arn
}

module "dns_tls" {
  source = "../dns-tls"

  name            = local.name
  domain          = var.domain
  has_certificate = var.has_certificate
  is_protected    = local.is_protected
}

module "waf" {
  source = "../waf"

  name               = local.name
  log_retention_days = var.log_retention_days
  logs_key_arn       = module.encryption.logs_key_arn
}

module "identity" {
  source = "../identity"

  name                      = local.name
  cluster_name              = module.cluster.name
  cluster_arn               = module.cluster.arn
  oidc_provider_arn         = module.cluster.oidc_provider_arn
  oidc_issuer               = module.cluster.oidc_issuer
  kafka_arn                 = module.kafka.arn
  loki_bucket_arn           = module.object_store.loki_bucket_arn
  backup_bucket_arn         = module.object_store.backup_bucket_arn
  secret_prefix             = local.secret_prefix
  postgres_admin_secret_arn = module.postgres.admin_secret_arn
  dns_zone                  = module.dns_tls.zone_id
  waf_arn                   = module.waf.arn
  data_key_arn              = module.encryption.data_key_arn
}

module "monitoring" {
  source = "../monitoring"

  name                = local.name
  environment         = var.environment
  emails              = var.alarm_emails
  monthly_budget_usd  = var.monthly_budget_usd
  postgres_identifier = module.postgres.identifier
  kafka_name          = module.kafka.name
  redis_node_ids      = module.redis.node_ids
  cluster_name        = module.cluster.name
  logs_key_arn        = module.encryption.logs_key_arn
}

module "backup" {
  source = "../backup"

  name            = local.name
  environment     = var.environment
  keep_days       = var.backup_days
  is_protected    = local.is_protected
  is_locked       = var.environment == "prod"
  replica         = var.replica
  alarm_topic_arn = module.monitoring.topic_arn
  data_key_arn    = module.encryption.data_key_arn
}
