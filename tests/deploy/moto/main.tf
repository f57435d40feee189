# The modules of AWS whose every resource moto imitates, put together as modules/aws/environment does.

terraform {
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 5.100"
    }
  }
}

variable "endpoint" {
  type = string
}

provider "aws" {
  region                      = "eu-central-1"
  access_key                  = "mock"
  secret_key                  = "mock"
  s3_use_path_style           = true
  skip_credentials_validation = true
  skip_metadata_api_check     = true

  endpoints {
    acm            = var.endpoint
    cloudwatch     = var.endpoint
    cloudwatchlogs = var.endpoint
    ec2            = var.endpoint
    iam            = var.endpoint
    kms            = var.endpoint
    rds            = var.endpoint
    route53        = var.endpoint
    s3             = var.endpoint
    secretsmanager = var.endpoint
    sts            = var.endpoint
    wafv2          = var.endpoint
  }

  default_tags {
    tags = { "isa-cloud.io/environment" = "dev" }
  }
}

locals {
  name    = "isa-dev"
  secrets = yamldecode(file("${path.module}/../secrets.yaml"))
}

module "encryption" {
  source = "../modules/aws/encryption"

  name = local.name
}

module "network" {
  source = "../modules/aws/network"

  name               = local.name
  cidr               = "10.20.0.0/16"
  zones              = ["eu-central-1a", "eu-central-1b", "eu-central-1c"]
  nat_per_zone       = false
  log_retention_days = 30
  logs_key_arn       = module.encryption.logs_key_arn
}

resource "aws_security_group" "nodes" { # EKS makes it
  name   = "${local.name}-nodes"
  vpc_id = module.network.vpc_id
}

module "postgres" {
  source = "../modules/aws/postgres"

  name                      = local.name
  instance_class            = "db.m7g.large"
  multi_az                  = true
  storage_gib               = 100
  max_storage_gib           = 1000
  backup_days               = 35
  is_protected              = true
  log_retention_days        = 30
  vpc_id                    = module.network.vpc_id
  subnet_ids                = module.network.database_subnet_ids
  cluster_security_group_id = aws_security_group.nodes.id
  data_key_arn              = module.encryption.data_key_arn
  logs_key_arn              = module.encryption.logs_key_arn
}

module "object_store" {
  source = "../modules/aws/object-store"

  name            = local.name
  loki_days       = 14
  backup_days     = 7
  access_log_days = 30
  is_protected    = false
  data_key_arn    = module.encryption.data_key_arn
}

module "secrets" {
  source = "../modules/aws/secrets"

  name         = local.name
  prefix       = "${local.name}-"
  secret_names = setsubtract(local.secrets.names, local.secrets.not_on.aws)
  is_protected = false
  data_key_arn = module.encryption.data_key_arn
}

module "dns_tls" {
  source = "../modules/aws/dns-tls"

  name            = local.name
  domain          = "dev.isa.example.com"
  has_certificate = true
  is_protected    = false
}

module "waf" {
  source = "../modules/aws/waf"

  name               = local.name
  log_retention_days = 30
  logs_key_arn       = module.encryption.logs_key_arn
}

# What `isa secrets fill` reads.
output "cloud" { value = "aws" }
output "secret_store" { value = "eu-central-1" }
output "secret_prefix" { value = "${local.name}-" }
