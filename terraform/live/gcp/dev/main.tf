provider "google" {
  project = var.project
  region  = var.region

  default_labels = {
    environment = "dev"
    made-by     = "terraform-live-gcp-dev"
  }

  # Budgets belong to the billing account; their calls count for this project.
  billing_project       = var.project
  user_project_override = true
}

locals {
  secrets = yamldecode(file("${path.module}/../../../secrets.yaml"))
}

module "environment" {
  source = "../../../modules/gcp/environment"

  environment             = "dev"
  region                  = var.region
  replica_region          = ""
  multi_region            = var.multi_region
  domain                  = var.domain
  authorized_networks     = var.authorized_networks
  alarm_emails            = var.alarm_emails
  billing_account         = var.billing_account
  postgres_admin_password = var.postgres_admin_password
  secret_names            = setsubtract(local.secrets.names, lookup(local.secrets.not_on, "gcp", []))

  # One of what may fail, short memories.
  is_protected    = false
  release_channel = "REGULAR"
  backup_days     = 7
  loki_days       = 14
  log_days        = 30
  monthly_budget  = 1500

  cidrs = {
    nodes         = "10.60.0.0/20"
    pods          = "10.60.64.0/18"
    services      = "10.60.32.0/20"
    control_plane = "10.60.16.0/28"
    managed       = "10.60.48.0/20"
  }

  node_pools = {
    system = { machine_type = "e2-standard-2", minimum = 2, maximum = 3, disk_gb = 60, spot = false }
    work   = { machine_type = "e2-standard-4", minimum = 1, maximum = 6, disk_gb = 80, spot = true }
  }

  postgres = { tier = "db-custom-1-3840", disk_gb = 20 }
  kafka    = { vcpus = 3, memory_gb = 3 }
  redis_gb = 1
}
