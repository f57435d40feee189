mock_provider "aws" {
  source = "../../../tests/mocks/aws"
}

variables {
  name         = "isa-prod-backups-111122223333"
  key_arn      = "arn:aws:kms:eu-central-1:111122223333:key/data"
  days         = 35
  undo_days    = 30
  is_protected = true
}

run "it_is_private" {
  assert {
    condition     = aws_s3_bucket_public_access_block.this.block_public_acls && aws_s3_bucket_public_access_block.this.block_public_policy && aws_s3_bucket_public_access_block.this.ignore_public_acls && aws_s3_bucket_public_access_block.this.restrict_public_buckets
    error_message = "A bucket needs all four locks."
  }

  assert {
    condition     = aws_s3_bucket_ownership_controls.this.rule[0].object_ownership == "BucketOwnerEnforced"
    error_message = "ACLs must be off."
  }
}

run "plain_text_is_refused_and_nobody_else_is_named" {
  assert {
    condition     = length(jsondecode(aws_s3_bucket_policy.this.policy).Statement) == 1 && jsondecode(aws_s3_bucket_policy.this.policy).Statement[0].Effect == "Deny" && jsondecode(aws_s3_bucket_policy.this.policy).Statement[0].Condition.Bool["aws:SecureTransport"] == "false"
    error_message = "The policy must deny what comes without TLS, and allow nothing by itself."
  }
}

run "objects_are_encrypted_with_the_key" {
  assert {
    condition     = one(aws_s3_bucket_server_side_encryption_configuration.this.rule).apply_server_side_encryption_by_default[0].kms_master_key_id == var.key_arn && one(aws_s3_bucket_server_side_encryption_configuration.this.rule).apply_server_side_encryption_by_default[0].sse_algorithm == "aws:kms"
    error_message = "Objects must be encrypted with the key that was given."
  }
}

run "a_deletion_can_be_undone" {
  assert {
    condition     = aws_s3_bucket_versioning.this.versioning_configuration[0].status == "Enabled" && aws_s3_bucket_lifecycle_configuration.this.rule[0].noncurrent_version_expiration[0].noncurrent_days == 30 && aws_s3_bucket_lifecycle_configuration.this.rule[1].expiration[0].days == 35
    error_message = "Old versions are kept for undo_days, objects for days."
  }

  assert {
    condition     = !aws_s3_bucket.this.force_destroy
    error_message = "A protected bucket must not be deleted with what is in it."
  }
}

run "without_days_objects_stay" {
  variables {
    days = null
  }

  assert {
    condition     = length(aws_s3_bucket_lifecycle_configuration.this.rule) == 1
    error_message = "No end was asked for."
  }
}

run "a_service_writes_for_whom_it_may" {
  variables {
    key_arn = null

    writers = [{ service = "logging.s3.amazonaws.com", actions = ["s3:PutObject"], of_objects = true, only_for = { "aws:SourceAccount" = "111122223333" } }]
  }

  assert {
    condition     = jsondecode(aws_s3_bucket_policy.this.policy).Statement[1].Principal.Service == "logging.s3.amazonaws.com" && jsondecode(aws_s3_bucket_policy.this.policy).Statement[1].Condition.StringEquals["aws:SourceAccount"] == "111122223333" && endswith(jsondecode(aws_s3_bucket_policy.this.policy).Statement[1].Resource, "/*")
    error_message = "The service may write objects, on this account's behalf only."
  }

  assert {
    condition     = one(aws_s3_bucket_server_side_encryption_configuration.this.rule).apply_server_side_encryption_by_default[0].sse_algorithm == "AES256"
    error_message = "Without a key S3's own encryption is used."
  }
}

run "a_service_that_writes_for_anybody_is_refused" {
  command = plan

  variables {
    writers = [{ service = "logging.s3.amazonaws.com", actions = ["s3:PutObject"], of_objects = true, only_for = {} }]
  }

  expect_failures = [var.writers]
}

run "a_deletion_that_cannot_be_undone_is_refused" {
  command = plan

  variables {
    undo_days = 0
  }

  expect_failures = [var.undo_days]
}
