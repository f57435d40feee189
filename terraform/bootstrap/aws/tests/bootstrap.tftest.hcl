mock_provider "aws" {
  source = "../../tests/mocks/aws"
}

variables {
  region     = "eu-central-1"
  repository = "isa-cloud/isa-cloud"
}

run "the_state_is_encrypted_kept_and_private" {
  assert {
    condition     = one(aws_s3_bucket_server_side_encryption_configuration.state.rule).apply_server_side_encryption_by_default[0].kms_master_key_id == aws_kms_key.state.arn && aws_kms_key.state.enable_key_rotation
    error_message = "The state must be encrypted with a key of its own, which rotates."
  }

  assert {
    condition     = aws_s3_bucket_versioning.state.versioning_configuration[0].status == "Enabled" && aws_s3_bucket_lifecycle_configuration.state.rule[0].noncurrent_version_expiration[0].noncurrent_days == 90
    error_message = "A state that was overwritten must be there for 90 days."
  }

  assert {
    condition     = aws_s3_bucket_public_access_block.state.block_public_acls && aws_s3_bucket_public_access_block.state.block_public_policy && aws_s3_bucket_public_access_block.state.ignore_public_acls && aws_s3_bucket_public_access_block.state.restrict_public_buckets
    error_message = "The bucket needs all four locks."
  }

  assert {
    condition     = jsondecode(aws_s3_bucket_policy.state.policy).Statement[0].Effect == "Deny"
    error_message = "Plain text must be refused."
  }
}

run "the_state_is_not_deleted_with_its_bucket" {
  assert {
    condition     = !aws_s3_bucket.state.force_destroy
    error_message = "Without the state nobody knows what belongs to whom: S3 must refuse to delete a bucket that holds one."
  }
}

run "a_pull_request_looks_and_only_a_guarded_environment_applies" {
  assert {
    condition     = jsondecode(aws_iam_role.ci["plan"].assume_role_policy).Statement[0].Condition.StringEquals["token.actions.githubusercontent.com:sub"] == ["repo:isa-cloud/isa-cloud:pull_request"]
    error_message = "The plan's role is for pull requests of this repository."
  }

  assert {
    condition = jsondecode(aws_iam_role.ci["apply"].assume_role_policy).Statement[0].Condition.StringEquals["token.actions.githubusercontent.com:sub"] == [
      "repo:isa-cloud/isa-cloud:environment:dev", "repo:isa-cloud/isa-cloud:environment:staging", "repo:isa-cloud/isa-cloud:environment:prod",
    ]
    error_message = "The role that applies is for jobs in an environment of this repository, which reviewers guard."
  }

  assert {
    condition     = endswith(aws_iam_role_policy_attachment.ci["plan"].policy_arn, "/ReadOnlyAccess")
    error_message = "A pull request may only look."
  }
}

run "a_plan_reads_no_secret" {
  assert {
    condition     = jsondecode(aws_iam_role_policy.plan.policy).Statement[0].Effect == "Deny" && contains(jsondecode(aws_iam_role_policy.plan.policy).Statement[0].Action, "secretsmanager:GetSecretValue")
    error_message = "ReadOnlyAccess includes secrets' values; the plan's role must be denied them."
  }
}

run "the_backend_file_names_bucket_region_and_key" {
  assert {
    condition     = aws_s3_bucket.state.bucket == "isa-terraform-111122223333-eu-central-1" && strcontains(output.backend, "bucket     = ")
    error_message = "backend.hcl must name the bucket."
  }

  assert {
    condition     = strcontains(output.backend, "kms_key_id = \"${aws_kms_key.state.arn}\"")
    error_message = "backend.hcl must name the key, else the state is encrypted with S3's."
  }
}

run "every_repository_of_an_owner_is_refused" {
  command = plan

  variables {
    repository = "isa-cloud/*"
  }

  expect_failures = [var.repository]
}
