mock_provider "google" {
  source = "../../../tests/mocks/gcp"
}

variables {
  name           = "isa-prod"
  prefix         = "isa-prod-"
  secret_names   = ["redis-password", "smtp-password"]
  values         = { redis-password = "from-memorystore" }
  value_versions = { redis-password = 1 }
  rotation_days  = 90
  keys           = { europe-west3 = "projects/example-isa/locations/europe-west3/keyRings/isa-prod/cryptoKeys/secrets", europe-west4 = "projects/example-isa/locations/europe-west4/keyRings/isa-prod/cryptoKeys/secrets-replica" }
  topics_key     = "projects/example-isa/locations/europe-west3/keyRings/isa-prod/cryptoKeys/topics"
}

run "an_entry_is_named_as_the_contract_says" {
  command = plan

  assert {
    condition     = google_secret_manager_secret.this["smtp-password"].secret_id == "isa-prod-smtp-password"
    error_message = "external-secrets asks for <prefix><name>."
  }
}

run "values_are_encrypted_with_our_keys_in_both_regions" {
  command = plan

  assert {
    condition     = tomap({ for replica in google_secret_manager_secret.this["smtp-password"].replication[0].user_managed[0].replicas : replica.location => replica.customer_managed_encryption[0].kms_key_name }) == var.keys
    error_message = "Each region's copy needs that region's key."
  }
}

run "terraform_knows_no_value" {
  command = plan

  assert {
    condition     = google_secret_manager_secret_version.this["redis-password"].secret_data == null && toset(keys(google_secret_manager_secret_version.this)) == toset(["redis-password"])
    error_message = "Values must be handed over by the write-only argument, and only those that Google made."
  }
}

run "people_are_told_when_a_value_is_due" {
  command = plan

  assert {
    condition     = google_secret_manager_secret.this["smtp-password"].rotation[0].rotation_period == "7776000s" && length(google_secret_manager_secret.this["smtp-password"].topics) == 1
    error_message = "Every entry must be due after 90 days, and say so to the topic."
  }
}

run "a_prefix_of_another_form_is_refused" {
  command = plan

  variables {
    prefix = "prod/"
  }

  expect_failures = [var.prefix]
}

run "no_secrets_are_refused" {
  command = plan

  variables {
    secret_names = []
  }

  expect_failures = [var.secret_names]
}

run "no_rotation_is_refused" {
  command = plan

  variables {
    rotation_days = 0
  }

  expect_failures = [var.rotation_days]
}
