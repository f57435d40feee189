provider "aws" {
  region = var.region

  default_tags {
    tags = {
      "isa-cloud.io/environment" = "prod"
      "isa-cloud.io/made-by"     = "terraform/live/aws/prod"
    }
  }
}

provider "aws" {
  alias  = "replica"
  region = var.replica_region

  default_tags {
    tags = {
      "isa-cloud.io/environment" = "prod"
      "isa-cloud.io/made-by"     = "terraform/live/aws/prod"
    }
  }
}

locals {
  secrets = yamldecode(file("${path.module}/../../../secrets.yaml"))
}

module "environment" {
  source = "../../../modules/aws/environment"

  environment         = "prod"
  zones               = var.zones
  domain              = var.domain
  administrators      = var.administrators
  public_access_cidrs = var.public_access_cidrs
  alarm_emails        = var.alarm_emails
  secret_names        = setsubtract(local.secrets.names, local.secrets.not_on.aws)

  cidr               = "10.40.0.0/16"
  nat_per_zone       = true
  has_certificate    = true
  backup_days        = 35
  loki_days          = 95
  log_retention_days = 365
  monthly_budget_usd = 5000

  node_groups = {
    system = { instance_types = ["m6i.large"], min = 3, max = 6 }
    work   = { instance_types = ["m6i.xlarge"], min = 3, max = 20, disk_gib = 120 }
  }

  postgres = { instance_class = "db.m7g.large", multi_az = true, storage_gib = 100, max_storage_gib = 1000 }
  kafka    = { instance_type = "kafka.m7g.large", volume_gib = 250, max_volume_gib = 2000 }
  redis    = { node_type = "cache.m7g.large", nodes = 3 }

  replica = module.replica
}

module "replica" {
  source    = "../../../modules/aws/replica"
  providers = { aws = aws.replica }

  name         = "isa-prod"
  keep_days    = 35
  postgres_arn = module.environment.postgres_arn
}
