mock_provider "google" {
  source = "../../tests/mocks/gcp"
}

variables {
  project     = "example-isa"
  region      = "europe-west3"
  environment = "prod"
  repository  = "isa-cloud/isa"
}

run "a_state_is_never_public_and_never_lost" {
  command = plan

  assert {
    condition     = google_storage_bucket.state.public_access_prevention == "enforced" && google_storage_bucket.state.versioning[0].enabled && google_storage_bucket.state.soft_delete_policy[0].retention_duration_seconds == 2592000
    error_message = "The state must be private, and every version of it kept."
  }
}

run "only_our_repository_gets_in" {
  command = plan

  assert {
    condition     = google_iam_workload_identity_pool_provider.forge.attribute_condition == "assertion.repository == 'isa-cloud/isa'"
    error_message = "Tokens of other repositories must be refused."
  }
}

run "a_pull_request_only_looks" {
  command = plan

  assert {
    condition     = toset([for grant in google_project_iam_member.ci : grant.role]) == toset(["roles/viewer", "roles/iam.securityReviewer", "roles/owner"]) && google_project_iam_member.ci["apply roles/owner"].role == "roles/owner"
    error_message = "Only the environment's job may apply."
  }
}

run "an_unknown_environment_is_refused" {
  command = plan

  variables {
    environment = "test"
  }

  expect_failures = [var.environment]
}

run "every_repository_is_refused" {
  command = plan

  variables {
    repository = "isa-cloud/*"
  }

  expect_failures = [var.repository]
}
