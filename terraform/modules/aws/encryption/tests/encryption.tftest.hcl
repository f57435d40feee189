mock_provider "aws" {
  source = "../../../tests/mocks/aws"
}

variables {
  name = "isa-dev"
}

run "every_key_rotates_and_waits_before_it_goes" {
  assert {
    condition     = alltrue([for key in aws_kms_key.this : key.enable_key_rotation && key.deletion_window_in_days == 30])
    error_message = "A key must rotate each year and be kept for 30 days after its deletion."
  }
}

run "only_the_account_and_log_services_use_keys" {
  assert {
    condition     = length(jsondecode(aws_kms_key.this["data"].policy).Statement) == 1
    error_message = "The stores' key must be given by IAM alone."
  }

  assert {
    condition = alltrue([for statement in jsondecode(aws_kms_key.this["logs"].policy).Statement :
    try(statement.Principal.AWS, "") == "arn:aws:iam::111122223333:root" || try(length(statement.Condition), 0) > 0])
    error_message = "A service may use the key for this account only: give its statement a condition."
  }
}

run "a_long_name_is_refused" {
  command = plan

  variables {
    name = "isa-a-very-long-environment"
  }

  expect_failures = [var.name]
}
