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

run "copies_are_encrypted_and_cannot_be_deleted" {
  assert {
    condition     = aws_backup_vault.this.kms_key_arn == aws_kms_key.this.arn && aws_kms_key.this.enable_key_rotation
    error_message = "The copies are encrypted with a key of this region, which rotates."
  }

  assert {
    condition     = aws_backup_vault_lock_configuration.this.min_retention_days == 7 && aws_backup_vault_lock_configuration.this.max_retention_days == 35
    error_message = "Nobody may delete the copies, also not who lost the originals."
  }
}

run "more_than_rds_keeps_is_refused" {
  command = plan

  variables {
    keep_days = 90
  }

  expect_failures = [var.keep_days]
}
