# What must be there before anything else: where Terraform keeps its state, and who the CI is. Applied once an account, by a person,
# with its own state kept beside it until `terraform init -migrate-state` moves it into the bucket that it made (terraform/README.md).

provider "aws" {
  region = var.region

  default_tags {
    tags = { "isa-cloud.io/made-by" = "terraform/bootstrap/aws" }
  }
}

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}

locals {
  account = data.aws_caller_identity.current.account_id
  bucket  = "isa-terraform-${local.account}-${var.region}"
  trail   = "arn:${data.aws_partition.current.partition}:cloudtrail:${var.region}:${local.account}:trail/isa-account"
  issuer  = "token.actions.githubusercontent.com"
}

resource "aws_kms_key" "state" {
  description             = "Terraform's state and the account's trail"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "TheAccountDecidesByIam"
        Effect    = "Allow"
        Principal = { AWS = "arn:${data.aws_partition.current.partition}:iam::${local.account}:root" }
        Action    = "kms:*"
        Resource  = "*" # in a key's policy this is the key itself
      },
      {
        Sid       = "TheTrailIsEncrypted"
        Effect    = "Allow"
        Principal = { Service = "cloudtrail.amazonaws.com" }
        Action    = ["kms:GenerateDataKey*", "kms:DescribeKey"]
        Resource  = "*"
        Condition = { StringEquals = { "aws:SourceArn" = local.trail } }
      },
    ]
  })
}

resource "aws_kms_alias" "state" {
  name          = "alias/isa-terraform-state"
  target_key_id = aws_kms_key.state.key_id
}

module "state" {
  source = "../../modules/aws/bucket"

  name         = local.bucket
  key_arn      = aws_kms_key.state.arn
  undo_days    = 90
  is_protected = true # without the state nobody knows what belongs to whom
}

# Who did what in the account, and who read a state or a backup.

module "trail" {
  source = "../../modules/aws/bucket"

  name         = "isa-trail-${local.account}-${var.region}"
  key_arn      = aws_kms_key.state.arn
  days         = 400
  undo_days    = 90
  is_protected = true

  writers = [
    { service = "cloudtrail.amazonaws.com", actions = ["s3:GetBucketAcl"], of_objects = false, only_for = { "aws:SourceArn" = local.trail } },
    { service = "cloudtrail.amazonaws.com", actions = ["s3:PutObject"], of_objects = true, only_for = { "aws:SourceArn" = local.trail } },
  ]
}

resource "aws_cloudtrail" "account" {
  #checkov:skip=CKV2_AWS_10:The trail is asked after the fact, in S3; alarms are on what the services themselves show
  #checkov:skip=CKV_AWS_252:Nobody waits for a file of the trail to appear

  name                          = "isa-account"
  s3_bucket_name                = module.trail.id
  is_multi_region_trail         = true
  include_global_service_events = true
  enable_log_file_validation    = true
  kms_key_id                    = aws_kms_key.state.arn

  advanced_event_selector {
    name = "What was changed and asked"

    field_selector {
      field  = "eventCategory"
      equals = ["Management"]
    }
  }

  advanced_event_selector {
    name = "Objects of states and backups"

    field_selector {
      field  = "eventCategory"
      equals = ["Data"]
    }

    field_selector {
      field  = "resources.type"
      equals = ["AWS::S3::Object"]
    }

    field_selector {
      field       = "resources.ARN"
      starts_with = [for prefix in ["isa-terraform-", "isa-dev-backups-", "isa-staging-backups-", "isa-prod-backups-"] : "arn:${data.aws_partition.current.partition}:s3:::${prefix}"]
    }
  }

  depends_on = [module.trail]
}

# The CI: no keys, but the forge's own token, and only of this repository. A pull request may look (plan); only a job in the
# environment of that name, which the forge guards by reviewers, may change something (apply).

resource "aws_iam_openid_connect_provider" "forge" {
  url            = "https://${local.issuer}"
  client_id_list = ["sts.amazonaws.com"]
}

locals {
  roles = {
    plan  = { subjects = ["repo:${var.repository}:pull_request"], policy = "ReadOnlyAccess" }
    apply = { subjects = [for env in ["dev", "staging", "prod"] : "repo:${var.repository}:environment:${env}"], policy = "AdministratorAccess" }
  }
}

resource "aws_iam_role" "ci" {
  for_each = local.roles

  name                 = "isa-terraform-${each.key}"
  max_session_duration = 7200 # a cluster and a database take their time
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Federated = aws_iam_openid_connect_provider.forge.arn }
      Action    = "sts:AssumeRoleWithWebIdentity"
      Condition = { StringEquals = {
        "${local.issuer}:aud" = "sts.amazonaws.com"
        "${local.issuer}:sub" = each.value.subjects
      } }
    }]
  })
}

# Whoever makes roles and keys is an administrator, whatever the policy is called; what guards the account is who may be this role.
resource "aws_iam_role_policy_attachment" "ci" {
  for_each = local.roles

  role       = aws_iam_role.ci[each.key].name
  policy_arn = "arn:${data.aws_partition.current.partition}:iam::aws:policy/${each.value.policy}"
}

# ReadOnlyAccess may read every secret's value and every object: a plan needs neither.
resource "aws_iam_role_policy" "plan" {
  name = "state-but-no-secrets"
  role = aws_iam_role.ci["plan"].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Effect   = "Deny"
        Action   = ["secretsmanager:GetSecretValue", "ssm:GetParameter*", "kafka-cluster:*"]
        Resource = "*"
      },
      {
        Effect      = "Deny"
        Action      = ["s3:GetObject", "s3:GetObjectVersion"]
        NotResource = ["${module.state.arn}/*"]
      },
      {
        Effect   = "Allow"
        Action   = ["s3:PutObject", "s3:DeleteObject"]
        Resource = ["${module.state.arn}/*.tflock"]
      },
      {
        Effect   = "Allow"
        Action   = ["kms:Decrypt", "kms:GenerateDataKey"]
        Resource = [aws_kms_key.state.arn]
      },
    ]
  })
}
