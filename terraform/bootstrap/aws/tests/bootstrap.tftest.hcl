mock_provider "aws" {
  source = "../../tests/mocks/aws"
}

variables {
  region     = "eu-central-1"
  repository = "isa-cloud/isa-cloud"
}

run "the_key_rotates_and_only_our_trail_uses_it_besides_iam" {
  assert {
    condition     = aws_kms_key.state.enable_key_rotation && jsondecode(aws_kms_key.state.policy).Statement[1].Condition.StringEquals["aws:SourceArn"] == "arn:aws:cloudtrail:eu-central-1:111122223333:trail/isa-account"
    error_message = "The state's key must rotate, and serve no other account's trail."
  }
}

run "what_was_done_in_the_account_is_recorded_and_cannot_be_rewritten" {
  assert {
    condition     = aws_cloudtrail.account.is_multi_region_trail && aws_cloudtrail.account.enable_log_file_validation && aws_cloudtrail.account.kms_key_id == aws_kms_key.state.arn
    error_message = "The trail must see every region, be encrypted, and show when it was tampered with."
  }

  assert {
    condition     = length(aws_cloudtrail.account.advanced_event_selector) == 2
    error_message = "Both management events and reads of states and backups must be recorded."
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
    condition     = strcontains(output.backend, "bucket     = \"isa-terraform-111122223333-eu-central-1\"")
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
