# One environment in one subscription: every module of this folder, and what one hands to the other.

data "azurerm_client_config" "current" {}

locals {
  name       = "isa-${var.environment}"
  prefix     = "isa-${var.environment}-"
  has_copies = var.replica_location != ""

  # Some names are shared by the whole world: the subscription makes ours our own.
  unique = substr(sha256("${data.azurerm_client_config.current.subscription_id}/${local.name}"), 0, 6)

  # Written once elsewhere: who publishes and reads which topic. Every service does.
  kafka    = yamldecode(file("${path.module}/../../../../charts/derived/topics.yaml"))
  topics   = local.kafka.topics
  services = toset(keys(local.kafka.users))
}

resource "azurerm_resource_group" "this" {
  name     = local.name
  location = var.location
}

module "encryption" {
  source = "../encryption"

  name                = local.name
  location            = var.location
  replica_location    = var.replica_location
  resource_group_name = azurerm_resource_group.this.name
  unique              = local.unique
  operator_cidrs      = var.operator_cidrs
  tenant_id           = data.azurerm_client_config.current.tenant_id
  administrator_id    = data.azurerm_client_config.current.object_id
  is_hardware         = var.is_protected
}

module "network" {
  source = "../network"

  name                    = local.name
  location                = var.location
  resource_group_name     = azurerm_resource_group.this.name
  cidrs                   = var.cidrs
  nat_addresses           = var.is_protected ? 2 : 1
  ddos_protection_plan_id = var.ddos_protection_plan_id
}

module "cluster" {
  source = "../cluster"

  name                    = local.name
  location                = var.location
  resource_group_name     = azurerm_resource_group.this.name
  subnet_ids              = module.network.subnet_ids
  pod_cidr                = var.cidrs.pods
  service_cidr            = var.cidrs.services
  authorized_ip_ranges    = var.is_api_private ? [] : var.operator_cidrs
  administrator_group_ids = var.administrator_group_ids
  system_pool             = var.system_pool
  node_pools              = var.node_pools
  disk_encryption_set_id  = module.encryption.disk_encryption_set_id
  key                     = module.encryption.keys["cluster"]
  log_workspace_id        = module.monitoring.log_workspace_id
  has_service_level       = var.is_protected
}

module "postgres" {
  source = "../postgres"

  name                   = local.name
  location               = var.location
  resource_group_name    = azurerm_resource_group.this.name
  subnet_id              = module.network.subnet_ids["postgres"]
  private_zone_id        = module.network.private_zone_ids["postgres"]
  sku_name               = var.postgres.sku_name
  storage_mb             = var.postgres.storage_mb
  high_availability      = var.is_protected
  backup_days            = var.backup_days
  admin_user             = "isa"
  admin_password         = var.postgres_admin_password
  admin_password_version = var.credential_versions.postgres
  key                    = module.encryption.keys["postgres"]
  geo_key                = local.has_copies ? module.encryption.keys["postgres-replica"] : null
  log_workspace_id       = module.monitoring.log_workspace_id
}

module "kafka" {
  source = "../kafka"

  name                = local.name
  location            = var.location
  resource_group_name = azurerm_resource_group.this.name
  unique              = local.unique
  subnet_id           = module.network.subnet_ids["endpoints"]
  private_zone_id     = module.network.private_zone_ids["event_hubs"]
  processing_units    = var.processing_units
  topics              = local.topics
  key                 = module.encryption.keys["kafka"]
  log_workspace_id    = module.monitoring.log_workspace_id
}

module "redis" {
  source = "../redis"

  name                = local.name
  location            = var.location
  resource_group_name = azurerm_resource_group.this.name
  unique              = local.unique
  subnet_id           = module.network.subnet_ids["endpoints"]
  private_zone_id     = module.network.private_zone_ids["redis"]
  sku_name            = var.redis_sku
  high_availability   = var.is_protected
  key                 = module.encryption.keys["redis"]
  log_workspace_id    = module.monitoring.log_workspace_id
}

module "object_store" {
  source = "../object-store"

  name                = local.name
  location            = var.location
  resource_group_name = azurerm_resource_group.this.name
  unique              = local.unique
  operator_cidrs      = var.operator_cidrs
  subnet_id           = module.network.subnet_ids["endpoints"]
  private_zone_id     = module.network.private_zone_ids["blob"]
  has_copies          = local.has_copies
  loki_days           = var.loki_days
  backup_days         = var.backup_days
  key                 = module.encryption.keys["objects"]
  log_workspace_id    = module.monitoring.log_workspace_id
}

module "secrets" {
  source = "../secrets"

  name                = local.name
  location            = var.location
  resource_group_name = azurerm_resource_group.this.name
  unique              = local.unique
  operator_cidrs      = var.operator_cidrs
  tenant_id           = data.azurerm_client_config.current.tenant_id
  administrator_id    = data.azurerm_client_config.current.object_id
  prefix              = local.prefix
  rotation_days       = 120
  subnet_id           = module.network.subnet_ids["endpoints"]
  private_zone_id     = module.network.private_zone_ids["vault"]
  log_workspace_id    = module.monitoring.log_workspace_id

  value_versions = {
    postgres-superuser = var.credential_versions.postgres
    kafka-password     = var.credential_versions.kafka
    redis-password     = var.credential_versions.redis
  }
  values = {
    postgres-superuser = var.postgres_admin_password
    kafka-password     = module.kafka.password
    redis-password     = module.redis.password
  }
}

module "dns_tls" {
  source = "../dns-tls"

  resource_group_name = azurerm_resource_group.this.name
  domain              = var.domain
}

module "identity" {
  source = "../identity"

  name                = local.name
  location            = var.location
  resource_group_name = azurerm_resource_group.this.name
  resource_group_id   = azurerm_resource_group.this.id
  oidc_issuer_url     = module.cluster.oidc_issuer_url
  services            = local.services
  vault_id            = module.secrets.vault_id
  dns_zone_id         = module.dns_tls.zone_id
  container_ids       = module.object_store.container_ids
}

module "backup" {
  source = "../backup"

  name                 = local.name
  location             = var.location
  resource_group_name  = azurerm_resource_group.this.name
  has_copies           = local.has_copies
  is_protected         = var.is_protected
  cluster_id           = module.cluster.id
  cluster_principal_id = module.encryption.keys["cluster"].principal_id
  server_id            = module.postgres.server_id
  snapshot_days        = 7
  key                  = module.encryption.backup_key
  tenant_id            = data.azurerm_client_config.current.tenant_id
  subscription_id      = data.azurerm_client_config.current.subscription_id

  storage = {
    account_id   = module.object_store.account_id
    account_name = module.object_store.account_name
    container    = module.object_store.containers["backup"]
  }
}

module "waf" {
  source = "../waf"

  name                = local.name
  location            = var.location
  resource_group_name = azurerm_resource_group.this.name
  requests_per_minute = 1200
  is_enforced         = var.is_protected
}

module "monitoring" {
  source = "../monitoring"

  name                 = local.name
  location             = var.location
  resource_group_name  = azurerm_resource_group.this.name
  resource_group_id    = azurerm_resource_group.this.id
  unique               = local.unique
  subscription_id      = "/subscriptions/${data.azurerm_client_config.current.subscription_id}"
  alarm_emails         = var.alarm_emails
  log_retention_days   = var.log_retention_days
  monthly_budget       = var.monthly_budget
  network_id           = module.network.network_id
  network_watcher_name = "NetworkWatcher_${var.location}"
  server_id            = module.postgres.server_id
  redis_id             = module.redis.id
  namespace_id         = module.kafka.namespace_id
  cluster_id           = module.cluster.id
}
