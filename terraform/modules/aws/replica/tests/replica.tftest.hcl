mock_provider "aws" {
  source = "../../../tests/mocks/aws"
}

variables {
  name         = "isa-prod"
  keep_days    = 35
  postgres_arn = "arn:aws:rds:eu-central-1:111122223333:db:isa-prod"
}

run "points_in_time_can_be_restored_here_too" {
  assert {
    condition     = aws_db_instance_automated_backups_replication.this.source_db_instance_arn == var.postgres_arn && aws_db_instance_automated_backups_replication.this.retention_period == 35 && aws_db_instance_automated_backups_replication.this.kms_key_id == aws_kms_key.this.arn
    error_message = "RDS must send its backups here, encrypted with this region's key."
  }
}

run "copies_are_locked_encrypted_and_private" {
  assert {
    condition     = aws_backup_vault.this.kms_key_arn == aws_kms_key.this.arn && aws_backup_vault_lock_configuration.this.min_retention_days == 7
    error_message = "Nobody may delete the copies, also not who lost the originals."
  }

  assert {
    condition     = aws_s3_bucket_public_access_block.backups.block_public_acls && aws_s3_bucket_public_access_block.backups.block_public_policy && aws_s3_bucket_public_access_block.backups.ignore_public_acls && aws_s3_bucket_public_access_block.backups.restrict_public_buckets
    error_message = "The bucket needs all four locks."
  }

  assert {
    condition     = aws_s3_bucket_versioning.backups.versioning_configuration[0].status == "Enabled" && one(aws_s3_bucket_server_side_encryption_configuration.backups.rule).apply_server_side_encryption_by_default[0].sse_algorithm == "aws:kms"
    error_message = "S3 copies only into a bucket with versions; copies are encrypted."
  }

  assert {
    condition     = jsondecode(aws_s3_bucket_policy.backups.policy).Statement[0].Effect == "Deny" && jsondecode(aws_s3_bucket_policy.backups.policy).Statement[0].Condition.Bool["aws:SecureTransport"] == "false"
    error_message = "Plain text must be refused."
  }
}

run "more_than_rds_keeps_is_refused" {
  command = plan

  variables {
    keep_days = 90
  }

  expect_failures = [var.keep_days]
}
