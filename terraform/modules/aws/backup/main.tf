# AWS Backup: once a day everything with the tag isa-cloud.io/backup=daily, which are the database and the volumes of pods. Points in
# time are RDS's own; this is the copy that survives the loss of the instance, and of the region.

data "aws_partition" "current" {}

resource "aws_backup_vault" "this" {
  name          = var.name
  kms_key_arn   = var.data_key_arn
  force_destroy = !var.is_protected
}

# Nobody shortens or deletes, also no administrator; after three days not even AWS can lift it.
resource "aws_backup_vault_lock_configuration" "this" {
  count = var.is_locked ? 1 : 0

  backup_vault_name   = aws_backup_vault.this.name
  min_retention_days  = 7
  max_retention_days  = var.keep_days
  changeable_for_days = 3
}

resource "aws_backup_plan" "this" {
  name = "${var.name}-daily"

  rule {
    rule_name         = "daily"
    target_vault_name = aws_backup_vault.this.name
    schedule          = "cron(30 3 * * ? *)"
    start_window      = 60
    completion_window = 360

    lifecycle {
      delete_after = var.keep_days
    }

    dynamic "copy_action" {
      for_each = var.replica == null ? [] : [var.replica.vault_arn]

      content {
        destination_vault_arn = copy_action.value

        lifecycle {
          delete_after = var.keep_days
        }
      }
    }
  }
}

resource "aws_iam_role" "this" {
  name = "${var.name}-aws-backup"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "backup.amazonaws.com" }
      Action    = "sts:AssumeRole"
    }]
  })
}

resource "aws_iam_role_policy_attachment" "this" {
  for_each = toset(["AWSBackupServiceRolePolicyForBackup", "AWSBackupServiceRolePolicyForRestores"])

  role       = aws_iam_role.this.name
  policy_arn = "arn:${data.aws_partition.current.partition}:iam::aws:policy/service-role/${each.key}"
}

resource "aws_backup_selection" "this" {
  name         = "tagged"
  plan_id      = aws_backup_plan.this.id
  iam_role_arn = aws_iam_role.this.arn
  resources    = ["*"] # narrowed by both conditions

  condition {
    string_equals {
      key   = "aws:ResourceTag/isa-cloud.io/backup"
      value = "daily"
    }

    string_equals {
      key   = "aws:ResourceTag/isa-cloud.io/environment"
      value = var.environment
    }
  }
}

resource "aws_backup_vault_notifications" "this" {
  backup_vault_name   = aws_backup_vault.this.name
  sns_topic_arn       = var.alarm_topic_arn
  backup_vault_events = ["BACKUP_JOB_FAILED", "COPY_JOB_FAILED", "BACKUP_JOB_EXPIRED"]
}
