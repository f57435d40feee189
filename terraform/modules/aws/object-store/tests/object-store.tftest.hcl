mock_provider "aws" {
  source = "../../../tests/mocks/aws"
}

variables {
  name            = "isa-prod"
  loki_days       = 95
  backup_days     = 35
  access_log_days = 365
  is_protected    = true
  data_key_arn    = "arn:aws:kms:eu-central-1:111122223333:key/data"

  replica = {
    bucket_arn = "arn:aws:s3:::isa-prod-backups-copy"
    key_arn    = "arn:aws:kms:eu-west-1:111122223333:key/copies"
  }
}

run "who_reads_data_is_recorded" {
  assert {
    condition     = toset(keys(aws_s3_bucket_logging.this)) == toset(["loki", "backups"])
    error_message = "Access to both buckets with data must be recorded."
  }
}

run "only_s3_itself_writes_the_record" {
  assert {
    condition     = jsondecode(module.bucket["access"].policy).Statement[1].Principal.Service == "logging.s3.amazonaws.com" && alltrue([for name in ["loki", "backups"] : length(jsondecode(module.bucket[name].policy).Statement) == 1])
    error_message = "S3's log delivery writes to the third bucket, and no service to the other two."
  }
}

run "backups_are_copied_to_another_region" {
  assert {
    condition     = aws_s3_bucket_replication_configuration.backups[0].rule[0].destination[0].bucket == var.replica.bucket_arn && aws_s3_bucket_replication_configuration.backups[0].rule[0].destination[0].encryption_configuration[0].replica_kms_key_id == var.replica.key_arn
    error_message = "Backups must be copied, encrypted with the other region's key."
  }

  assert {
    condition     = aws_s3_bucket_replication_configuration.backups[0].rule[0].delete_marker_replication[0].status == "Disabled"
    error_message = "A deletion must not follow to the copies."
  }

  assert {
    condition     = alltrue([for statement in jsondecode(aws_iam_role_policy.replication[0].policy).Statement : !contains(statement.Resource, "*")])
    error_message = "The role that copies must name its buckets and keys."
  }
}

run "without_a_second_region_nothing_is_copied" {
  variables {
    replica      = null
    is_protected = false
  }

  assert {
    condition     = length(aws_s3_bucket_replication_configuration.backups) == 0 && length(aws_iam_role.replication) == 0
    error_message = "Without a replica there is nothing to copy to."
  }
}

run "backups_of_a_day_are_refused" {
  command = plan

  variables {
    backup_days = 1
  }

  expect_failures = [var.backup_days]
}
