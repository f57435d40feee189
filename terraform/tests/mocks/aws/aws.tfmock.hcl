# What a mocked AWS answers where a random word would not do: the provider checks the form of ARNs, the modules read lists of one.

mock_data "aws_caller_identity" {
  defaults = { account_id = "111122223333" }
}

mock_data "aws_partition" {
  defaults = { partition = "aws" }
}

mock_data "aws_region" {
  defaults = { name = "eu-central-1" }
}

mock_resource "aws_acm_certificate" {
  defaults = {
    arn                       = "arn:aws:acm:eu-central-1:111122223333:certificate/mock"
    domain_validation_options = [{ domain_name = "mock", resource_record_name = "_a.mock.", resource_record_type = "CNAME", resource_record_value = "_b.acm-validations.aws." }]
  }
}

mock_resource "aws_appautoscaling_target" {
  defaults = { arn = "arn:aws:application-autoscaling:eu-central-1:111122223333:scalable-target/mock" }
}

mock_resource "aws_backup_vault" {
  defaults = { arn = "arn:aws:backup:eu-central-1:111122223333:backup-vault:mock" }
}

mock_resource "aws_cloudwatch_log_group" {
  defaults = { arn = "arn:aws:logs:eu-central-1:111122223333:log-group:mock" }
}

mock_resource "aws_db_instance" {
  defaults = {
    arn                = "arn:aws:rds:eu-central-1:111122223333:db:mock"
    address            = "postgres.mock"
    port               = 5432
    master_user_secret = [{ kms_key_id = "", secret_arn = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:rds!db-mock-AbCdEf", secret_status = "active" }]
  }
}

mock_resource "aws_eks_cluster" {
  defaults = {
    arn                   = "arn:aws:eks:eu-central-1:111122223333:cluster/mock"
    endpoint              = "https://mock.eks.amazonaws.com"
    certificate_authority = [{ data = "bW9jaw==" }]
    identity              = [{ oidc = [{ issuer = "https://oidc.eks.eu-central-1.amazonaws.com/id/MOCK" }] }]
  }
}

mock_resource "aws_elasticache_replication_group" {
  defaults = {
    arn                      = "arn:aws:elasticache:eu-central-1:111122223333:replicationgroup:mock"
    primary_endpoint_address = "redis.mock"
  }
}

mock_resource "aws_iam_openid_connect_provider" {
  defaults = { arn = "arn:aws:iam::111122223333:oidc-provider/mock" }
}

mock_resource "aws_iam_role" {
  defaults = { arn = "arn:aws:iam::111122223333:role/mock" }
}

mock_resource "aws_kms_key" {
  defaults = { arn = "arn:aws:kms:eu-central-1:111122223333:key/mock" }
}

mock_resource "aws_launch_template" {
  defaults = {
    id             = "lt-0123456789abcdef0"
    latest_version = 1
  }
}

mock_resource "aws_msk_cluster" {
  defaults = {
    arn                        = "arn:aws:kafka:eu-central-1:111122223333:cluster/mock/11111111-2222-3333-4444-555555555555-1"
    bootstrap_brokers_sasl_iam = "b-1.mock:9098,b-2.mock:9098,b-3.mock:9098"
  }
}

mock_resource "aws_msk_configuration" {
  defaults = {
    arn             = "arn:aws:kafka:eu-central-1:111122223333:configuration/mock/1"
    latest_revision = 1
  }
}

mock_resource "aws_route53_zone" {
  defaults = {
    arn          = "arn:aws:route53:::hostedzone/ZMOCK"
    zone_id      = "ZMOCK"
    name_servers = ["ns-1.mock"]
  }
}

mock_resource "aws_s3_bucket" {
  defaults = { arn = "arn:aws:s3:::mock" }
}

mock_resource "aws_secretsmanager_secret" {
  defaults = { arn = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:mock-AbCdEf" }
}

mock_resource "aws_sns_topic" {
  defaults = { arn = "arn:aws:sns:eu-central-1:111122223333:mock" }
}

mock_resource "aws_wafv2_web_acl" {
  defaults = { arn = "arn:aws:wafv2:eu-central-1:111122223333:regional/webacl/mock/1" }
}
