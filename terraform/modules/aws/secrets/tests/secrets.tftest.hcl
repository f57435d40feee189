mock_provider "aws" {
  source = "../../../tests/mocks/aws"
}

variables {
  name         = "isa-prod"
  prefix       = "isa-prod-"
  secret_names = ["redis-password", "users-master-key"]
  is_protected = true
  data_key_arn = "arn:aws:kms:eu-central-1:111122223333:key/data"
}

run "each_secret_has_an_entry_encrypted_with_our_key" {
  assert {
    condition     = toset([for secret in aws_secretsmanager_secret.this : secret.name]) == toset(["isa-prod-redis-password", "isa-prod-users-master-key"])
    error_message = "An entry is named <prefix><name>: external-secrets looks for that."
  }

  assert {
    condition     = alltrue([for secret in aws_secretsmanager_secret.this : secret.kms_key_id == var.data_key_arn && secret.recovery_window_in_days == 30])
    error_message = "Entries must be encrypted with the stores' key, and deleted ones kept for 30 days."
  }
}

run "a_thrown_away_environment_frees_its_names" {
  variables {
    is_protected = false
  }

  assert {
    condition     = alltrue([for secret in aws_secretsmanager_secret.this : secret.recovery_window_in_days == 0])
    error_message = "With a waiting time dev could not be made anew for a month."
  }
}

run "another_prefix_is_refused" {
  command = plan

  variables {
    prefix = "prod/"
  }

  expect_failures = [var.prefix]
}

run "a_name_that_kubernetes_refuses_is_refused" {
  command = plan

  variables {
    secret_names = ["Redis_Password"]
  }

  expect_failures = [var.secret_names]
}
