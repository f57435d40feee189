# Buckets: what Loki stores, what the backup jobs write, and who read either of them.

data "aws_caller_identity" "current" {}

locals {
  # Bucket names are everybody's: the account makes ours our own.
  buckets = {
    loki    = "${var.name}-loki-${data.aws_caller_identity.current.account_id}"
    backups = "${var.name}-backups-${data.aws_caller_identity.current.account_id}"
    access  = "${var.name}-access-${data.aws_caller_identity.current.account_id}"
  }
}

module "bucket" {
  source   = "../bucket"
  for_each = local.buckets

  name         = each.value
  key_arn      = each.key == "access" ? null : var.data_key_arn
  days         = { loki = var.loki_days, backups = var.backup_days, access = var.access_log_days }[each.key]
  days_below   = each.key == "backups" ? "replaced/" : "" # what the jobs still write on to stays, however old
  undo_days    = var.is_protected ? 30 : 7
  is_protected = var.is_protected

  writers = each.key != "access" ? [] : [{
    service    = "logging.s3.amazonaws.com"
    actions    = ["s3:PutObject"]
    of_objects = true
    only_for   = { "aws:SourceAccount" = data.aws_caller_identity.current.account_id }
  }]
}

resource "aws_s3_bucket_logging" "this" {
  for_each = toset(["loki", "backups"])

  bucket        = module.bucket[each.key].id
  target_bucket = module.bucket["access"].id
  target_prefix = "${each.key}/"
}

# Copies of the backups in another region.

resource "aws_iam_role" "replication" {
  count = var.replica == null ? 0 : 1

  name = "${var.name}-backup-replication"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "s3.amazonaws.com" }
      Action    = "sts:AssumeRole"
      Condition = { StringEquals = { "aws:SourceAccount" = data.aws_caller_identity.current.account_id } }
    }]
  })
}

resource "aws_iam_role_policy" "replication" {
  count = var.replica == null ? 0 : 1

  name = "replicate"
  role = aws_iam_role.replication[0].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Effect   = "Allow"
        Action   = ["s3:GetReplicationConfiguration", "s3:ListBucket"]
        Resource = [module.bucket["backups"].arn]
      },
      {
        Effect   = "Allow"
        Action   = ["s3:GetObjectVersionForReplication", "s3:GetObjectVersionAcl", "s3:GetObjectVersionTagging"]
        Resource = ["${module.bucket["backups"].arn}/*"]
      },
      {
        Effect   = "Allow"
        Action   = ["s3:ReplicateObject", "s3:ReplicateDelete", "s3:ReplicateTags"]
        Resource = ["${var.replica.bucket_arn}/*"]
      },
      {
        Effect   = "Allow"
        Action   = ["kms:Decrypt"]
        Resource = [var.data_key_arn]
      },
      {
        Effect   = "Allow"
        Action   = ["kms:Encrypt", "kms:GenerateDataKey"]
        Resource = [var.replica.key_arn]
      },
    ]
  })
}

resource "aws_s3_bucket_replication_configuration" "backups" {
  count = var.replica == null ? 0 : 1

  bucket = module.bucket["backups"].id
  role   = aws_iam_role.replication[0].arn

  rule {
    id     = "copy"
    status = "Enabled"

    filter {}

    delete_marker_replication {
      status = "Disabled" # what is deleted here is still there
    }

    source_selection_criteria {
      sse_kms_encrypted_objects {
        status = "Enabled"
      }
    }

    destination {
      bucket        = var.replica.bucket_arn
      storage_class = "STANDARD_IA"

      encryption_configuration {
        replica_kms_key_id = var.replica.key_arn
      }
    }
  }
}
