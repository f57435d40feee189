provider "aws" {
  region = var.region

  default_tags {
    tags = {
      "isa-cloud.io/environment" = "staging"
      "isa-cloud.io/made-by"     = "terraform/live/aws/staging"
    }
  }
}

locals {
  secrets = yamldecode(file("${path.module}/../../../secrets.yaml"))
}

module "environment" {
  source = "../../../modules/aws/environment"

  environment         = "staging"
  zones               = var.zones
  domain              = var.domain
  administrators      = var.administrators
  public_access_cidrs = var.public_access_cidrs
  alarm_emails        = var.alarm_emails
  secret_names        = setsubtract(local.secrets.names, local.secrets.not_on.aws)

  # The shape of production, smaller: what fails over there fails over here.
  cidr               = "10.30.0.0/16"
  nat_per_zone       = false
  backup_days        = 14
  loki_days          = 30
  log_retention_days = 90
  monthly_budget_usd = 2000

  node_groups = {
    system = { instance_types = ["m6i.large", "m5.large"], min = 2, max = 4 }
    work   = { instance_types = ["m6i.large", "m6a.large", "m5.large", "m5a.large"], min = 2, max = 8, spot = true }
  }

  postgres = { instance_class = "db.t4g.large", multi_az = true, storage_gib = 50, max_storage_gib = 200 }
  kafka    = { instance_type = "kafka.m7g.large", volume_gib = 100, max_volume_gib = 500 }
  redis    = { node_type = "cache.t4g.medium", nodes = 2 }
}

