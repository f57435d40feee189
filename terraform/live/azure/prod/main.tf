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

  environment             = "prod"
  location                = var.location
  replica_location        = var.replica_location
  domain                  = var.domain
  administrator_group_ids = var.administrator_group_ids
  operator_cidrs          = var.operator_cidrs
  alarm_emails            = var.alarm_emails
  ddos_protection_plan_id = var.ddos_protection_plan_id
  postgres_admin_password = var.postgres_admin_password

  is_protected       = true
  is_api_private     = true
  backup_days        = 35
  loki_days          = 95
  log_retention_days = 365
  monthly_budget     = 6500

  cidrs = {
    network    = "10.110.0.0/16"
    nodes      = "10.110.0.0/20"
    api_server = "10.110.16.0/28"
    postgres   = "10.110.17.0/24"
    endpoints  = "10.110.18.0/24"
    pods       = "10.194.0.0/16"
    services   = "10.200.0.0/16"
  }

  system_pool = { vm_size = "Standard_D4as_v5", minimum = 3, maximum = 6 }

  node_pools = {
    work = { vm_size = "Standard_D4as_v5", minimum = 3, maximum = 20, disk_gb = 128 }
  }

  postgres         = { sku_name = "GP_Standard_D4ads_v5", storage_mb = 131072 }
  processing_units = 1
  redis_sku        = "Balanced_B5"
}
