# What production has in a second region, so that the loss of the first one loses no more than minutes: called with a provider of
# that region.

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}
data "aws_region" "current" {}

resource "aws_kms_key" "this" {
  description             = "Copies of ${var.name}'s backups"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "TheAccountDecidesByIam"
      Effect    = "Allow"
      Principal = { AWS = "arn:${data.aws_partition.current.partition}:iam::${data.aws_caller_identity.current.account_id}:root" }
      Action    = "kms:*"
      Resource  = "*" # in a key's policy this is the key itself
    }]
  })
}

resource "aws_kms_alias" "this" {
  name          = "alias/${var.name}-replica"
  target_key_id = aws_kms_key.this.key_id
}

# RDS sends its snapshots and its log here: a point in time can be restored in this region too.
resource "aws_db_instance_automated_backups_replication" "this" {
  source_db_instance_arn = var.postgres_arn
  kms_key_id             = aws_kms_key.this.arn
  retention_period       = var.keep_days
}

resource "aws_backup_vault" "this" {
  name        = "${var.name}-replica"
  kms_key_arn = aws_kms_key.this.arn
}

resource "aws_backup_vault_lock_configuration" "this" {
  backup_vault_name   = aws_backup_vault.this.name
  min_retention_days  = 7
  max_retention_days  = var.keep_days
  changeable_for_days = 3
}

module "bucket" {
  source = "../bucket"

  name         = "${var.name}-backups-${data.aws_region.current.name}-${data.aws_caller_identity.current.account_id}"
  key_arn      = aws_kms_key.this.arn
  days         = var.keep_days
  days_below   = "replaced/"
  undo_days    = 30
  is_protected = true
}
