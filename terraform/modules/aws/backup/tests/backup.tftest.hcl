mock_provider "aws" {
  source = "../../../tests/mocks/aws"
}

variables {
  name            = "isa-prod"
  environment     = "prod"
  keep_days       = 35
  is_protected    = true
  is_locked       = true
  replica         = { vault_arn = "arn:aws:backup:eu-west-1:111122223333:backup-vault:isa-prod-replica" }
  alarm_topic_arn = "arn:aws:sns:eu-central-1:111122223333:isa-prod-alarms"
  data_key_arn    = "arn:aws:kms:eu-central-1:111122223333:key/data"
}

run "every_day_a_backup_is_taken_and_copied_away" {
  assert {
    condition     = one(aws_backup_plan.this.rule).schedule == "cron(30 3 * * ? *)" && one(one(aws_backup_plan.this.rule).lifecycle).delete_after == 35
    error_message = "Daily, after the database's own backup, kept for the days asked for."
  }

  assert {
    condition     = one(one(aws_backup_plan.this.rule).copy_action).destination_vault_arn == var.replica.vault_arn
    error_message = "Each backup must be copied to the other region."
  }
}

run "backups_are_encrypted_and_cannot_be_deleted" {
  assert {
    condition     = aws_backup_vault.this.kms_key_arn == var.data_key_arn && !aws_backup_vault.this.force_destroy
    error_message = "The vault must be encrypted with the stores' key, and not be deleted with what is in it."
  }

  assert {
    condition     = aws_backup_vault_lock_configuration.this[0].min_retention_days == 7 && aws_backup_vault_lock_configuration.this[0].max_retention_days == 35 && aws_backup_vault_lock_configuration.this[0].changeable_for_days == 3
    error_message = "The lock must hold, and allow what the plan asks for."
  }
}

run "only_what_is_tagged_here_is_backed_up" {
  assert {
    condition = toset([for equals in one(aws_backup_selection.this.condition).string_equals : "${equals.key}=${equals.value}"]) == toset([
      "aws:ResourceTag/isa-cloud.io/backup=daily", "aws:ResourceTag/isa-cloud.io/environment=prod",
    ])
    error_message = "Both tags are needed, else one environment's plan takes what is another's."
  }
}

run "a_failed_backup_is_heard_of" {
  assert {
    condition     = contains(aws_backup_vault_notifications.this.backup_vault_events, "BACKUP_JOB_FAILED") && contains(aws_backup_vault_notifications.this.backup_vault_events, "COPY_JOB_FAILED")
    error_message = "A backup or a copy that failed must raise an alarm."
  }
}

run "dev_keeps_no_lock_and_no_copy" {
  variables {
    is_locked    = false
    is_protected = false
    replica      = null
    keep_days    = 7
  }

  assert {
    condition     = length(aws_backup_vault_lock_configuration.this) == 0 && length(one(aws_backup_plan.this.rule).copy_action) == 0 && aws_backup_vault.this.force_destroy
    error_message = "Without a lock and a replica the vault goes with its backups."
  }
}

run "a_backup_of_a_day_is_refused" {
  command = plan

  variables {
    keep_days = 1
  }

  expect_failures = [var.keep_days]
}
