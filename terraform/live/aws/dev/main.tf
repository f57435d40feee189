provider "aws" {
  region = var.region

  default_tags {
    tags = {
      "isa-cloud.io/environment" = "dev"
      "isa-cloud.io/made-by"     = "terraform/live/aws/dev"
    }
  }
}

locals {
  secrets = yamldecode(file("${path.module}/../../../secrets.yaml"))
}

module "environment" {
  source = "../../../modules/aws/environment"

  environment         = "dev"
  zones               = var.zones
  domain              = var.domain
  administrators      = var.administrators
  public_access_cidrs = var.public_access_cidrs
  alarm_emails        = var.alarm_emails
  secret_names        = setsubtract(local.secrets.names, local.secrets.not_on.aws)

  # One of what may fail, spot nodes, short memories.
  cidr               = "10.20.0.0/16"
  nat_per_zone       = false
  backup_days        = 7
  loki_days          = 14
  log_retention_days = 30
  monthly_budget_usd = 1200

  node_groups = {
    system = { instance_types = ["m6i.large", "m5.large"], min = 2, max = 3 }
    work   = { instance_types = ["m6i.large", "m6a.large", "m5.large", "m5a.large"], min = 1, max = 6, spot = true }
  }

  postgres = { instance_class = "db.t4g.medium", multi_az = false, storage_gib = 30, max_storage_gib = 100 }
  kafka    = { instance_type = "kafka.m7g.large", volume_gib = 50, max_volume_gib = 200 }
  redis    = { node_type = "cache.t4g.small", nodes = 1 }
}

