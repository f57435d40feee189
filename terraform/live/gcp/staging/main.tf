provider "google" {
  project = var.project
  region  = var.region

  default_labels = {
    environment = "staging"
    made-by     = "terraform-live-gcp-staging"
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

  environment             = "staging"
  region                  = var.region
  replica_region          = ""
  multi_region            = var.multi_region
  domain                  = var.domain
  authorized_networks     = var.authorized_networks
  alarm_emails            = var.alarm_emails
  billing_account         = var.billing_account
  postgres_admin_password = var.postgres_admin_password
  secret_names            = setsubtract(local.secrets.names, lookup(local.secrets.not_on, "gcp", []))

  # The shape of production, smaller: what fails over there fails over here.
  is_protected    = true
  release_channel = "REGULAR"
  backup_days     = 14
  loki_days       = 30
  log_days        = 90
  monthly_budget  = 3000

  cidrs = {
    nodes         = "10.70.0.0/20"
    pods          = "10.70.64.0/18"
    services      = "10.70.32.0/20"
    control_plane = "10.70.16.0/28"
    managed       = "10.70.48.0/20"
  }

  node_pools = {
    system = { machine_type = "e2-standard-2", minimum = 3, maximum = 4, disk_gb = 60, spot = false }
    work   = { machine_type = "e2-standard-4", minimum = 2, maximum = 8, disk_gb = 80, spot = true }
  }

  postgres = { tier = "db-custom-2-7680", disk_gb = 50 }
  kafka    = { vcpus = 3, memory_gb = 6 }
  redis_gb = 2
}
