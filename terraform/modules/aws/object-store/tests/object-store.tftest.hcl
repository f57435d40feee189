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

run "no_bucket_is_public" {
  assert {
    condition = length(aws_s3_bucket_public_access_block.this) == 3 && alltrue([for block in aws_s3_bucket_public_access_block.this :
    block.block_public_acls && block.block_public_policy && block.ignore_public_acls && block.restrict_public_buckets])
    error_message = "Each bucket needs all four locks."
  }

  assert {
    condition     = alltrue([for controls in aws_s3_bucket_ownership_controls.this : controls.rule[0].object_ownership == "BucketOwnerEnforced"])
    error_message = "ACLs must be off."
  }
}

run "every_bucket_refuses_plain_text" {
  assert {
    condition = alltrue([for policy in aws_s3_bucket_policy.this :
      anytrue([for statement in jsondecode(policy.policy).Statement :
    statement.Effect == "Deny" && statement.Action == "s3:*" && try(statement.Condition.Bool["aws:SecureTransport"], "") == "false"])])
    error_message = "Each bucket's policy must deny what comes without TLS."
  }
}

run "data_is_encrypted_with_our_key" {
  assert {
    condition = alltrue([for name in ["loki", "backups"] :
    one(aws_s3_bucket_server_side_encryption_configuration.this[name].rule).apply_server_side_encryption_by_default[0].kms_master_key_id == var.data_key_arn])
    error_message = "Logs and backups must be encrypted with the stores' key."
  }

  assert {
    condition     = one(aws_s3_bucket_server_side_encryption_configuration.this["access"].rule).apply_server_side_encryption_by_default[0].sse_algorithm == "AES256"
    error_message = "S3 delivers access logs only to buckets with its own encryption."
  }
}

run "a_deletion_can_be_undone_for_30_days" {
  assert {
    condition     = alltrue([for versioning in aws_s3_bucket_versioning.this : versioning.versioning_configuration[0].status == "Enabled"])
    error_message = "Each bucket keeps old versions."
  }

  assert {
    condition     = alltrue([for lifecycle in aws_s3_bucket_lifecycle_configuration.this : lifecycle.rule[0].noncurrent_version_expiration[0].noncurrent_days == 30]) && aws_s3_bucket_lifecycle_configuration.this["backups"].rule[0].expiration[0].days == 35
    error_message = "Old versions go after 30 days, backups after theirs."
  }

  assert {
    condition     = alltrue([for bucket in aws_s3_bucket.this : !bucket.force_destroy])
    error_message = "A protected bucket must not be deleted with what is in it."
  }
}

run "who_reads_data_is_recorded" {
  assert {
    condition     = toset(keys(aws_s3_bucket_logging.this)) == toset(["loki", "backups"])
    error_message = "Access to both buckets with data must be recorded."
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
    condition     = length(aws_s3_bucket_replication_configuration.backups) == 0 && length(aws_iam_role.replication) == 0 && alltrue([for bucket in aws_s3_bucket.this : bucket.force_destroy])
    error_message = "Without a replica there is nothing to copy to; an unprotected bucket goes with its objects."
  }
}

run "backups_of_a_day_are_refused" {
  command = plan

  variables {
    backup_days = 1
  }

  expect_failures = [var.backup_days]
}
