provider "azurerm" {
  subscription_id     = var.subscription_id
  storage_use_azuread = true # there are no shared keys

  features {
    key_vault {
      purge_soft_delete_on_destroy = false # what is deleted can be had back for 90 days
    }
    resource_group {
      prevent_deletion_if_contains_resources = true
    }
  }
}

module "environment" {
  source = "../../../modules/azure/environment"

  environment             = "dev"
  location                = var.location
  replica_location        = ""
  domain                  = var.domain
  administrator_group_ids = var.administrator_group_ids
  operator_cidrs          = var.operator_cidrs
  alarm_emails            = var.alarm_emails
  ddos_protection_plan_id = var.ddos_protection_plan_id
  postgres_admin_password = var.postgres_admin_password

  # One of what may fail, short memories.
  is_protected       = false
  is_api_private     = false
  backup_days        = 7
  loki_days          = 14
  log_retention_days = 30
  monthly_budget     = 2200

  cidrs = {
    network    = "10.90.0.0/16"
    nodes      = "10.90.0.0/20"
    api_server = "10.90.16.0/28"
    postgres   = "10.90.17.0/24"
    endpoints  = "10.90.18.0/24"
    pods       = "10.192.0.0/16"
    services   = "10.200.0.0/16"
  }

  system_pool = { vm_size = "Standard_D2as_v5", minimum = 2, maximum = 3 }

  node_pools = {
    work = { vm_size = "Standard_D4as_v5", minimum = 1, maximum = 6, disk_gb = 80 }
  }

  postgres         = { sku_name = "B_Standard_B2s", storage_mb = 32768 }
  processing_units = 1
  redis_sku        = "Balanced_B1"
}
