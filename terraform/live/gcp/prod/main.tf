provider "google" {
  project = var.project
  region  = var.region

  default_labels = {
    environment = "prod"
    made-by     = "terraform-live-gcp-prod"
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

  environment             = "prod"
  region                  = var.region
  replica_region          = var.replica_region
  multi_region            = var.multi_region
  domain                  = var.domain
  authorized_networks     = var.authorized_networks
  alarm_emails            = var.alarm_emails
  billing_account         = var.billing_account
  postgres_admin_password = var.postgres_admin_password
  secret_names            = setsubtract(local.secrets.names, lookup(local.secrets.not_on, "gcp", []))

  is_protected    = true
  release_channel = "STABLE"
  backup_days     = 35
  loki_days       = 95
  log_days        = 365
  monthly_budget  = 6000

  cidrs = {
    nodes         = "10.80.0.0/20"
    pods          = "10.80.64.0/18"
    services      = "10.80.32.0/20"
    control_plane = "10.80.16.0/28"
    managed       = "10.80.48.0/20"
  }

  node_pools = {
    system = { machine_type = "n2d-standard-2", minimum = 3, maximum = 6, disk_gb = 80, spot = false }
    work   = { machine_type = "n2d-standard-4", minimum = 3, maximum = 20, disk_gb = 120, spot = false }
  }

  postgres = { tier = "db-custom-4-16384", disk_gb = 100 }
  kafka    = { vcpus = 6, memory_gb = 12 }
  redis_gb = 5
}
