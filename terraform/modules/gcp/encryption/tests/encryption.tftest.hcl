mock_provider "google" {
  source = "../../../tests/mocks/gcp"
}

variables {
  name             = "isa-prod"
  region           = "europe-west3"
  replica_region   = "europe-west4"
  multi_region     = "eu"
  protection_level = "HSM"
}

run "every_purpose_has_a_key_of_its_own" {
  command = plan

  assert {
    condition     = length(google_kms_crypto_key.this) == 13 && alltrue([for key in google_kms_crypto_key.this : key.rotation_period == "7776000s" && key.version_template[0].protection_level == "HSM"])
    error_message = "Nine purposes and four copies need a key each, which rotates, in hardware."
  }
}

run "a_key_serves_one_agent" {
  command = plan

  assert {
    condition     = google_kms_crypto_key_iam_member.agent["postgres"].member == "serviceAccount:service-123456789012@gcp-sa-cloud-sql.iam.gserviceaccount.com" && alltrue([for grant in google_kms_crypto_key_iam_member.agent : grant.role == "roles/cloudkms.cryptoKeyEncrypterDecrypter"])
    error_message = "Each key is for the agent of one service of Google, to encrypt and decrypt."
  }
}

run "keys_of_copies_are_where_the_copies_are" {
  command = plan

  assert {
    condition     = toset(keys(google_kms_key_ring.this)) == toset(["europe-west3", "europe-west4", "europe"])
    error_message = "Keys must be in the region, in the other region and in the multi-region."
  }
}

run "without_copies_all_keys_are_in_the_region" {
  command = plan

  variables {
    replica_region = ""
  }

  assert {
    condition     = toset(keys(google_kms_key_ring.this)) == toset(["europe-west3"])
    error_message = "An environment without copies needs keys in its own region only."
  }
}

run "a_long_name_is_refused" {
  command = plan

  variables {
    name = "isa-a-very-long-environment"
  }

  expect_failures = [var.name]
}

run "copies_in_the_same_region_are_refused" {
  command = plan

  variables {
    replica_region = "europe-west3"
  }

  expect_failures = [var.replica_region]
}

run "an_unknown_multi_region_is_refused" {
  command = plan

  variables {
    multi_region = "mars"
  }

  expect_failures = [var.multi_region]
}

run "an_unknown_protection_is_refused" {
  command = plan

  variables {
    protection_level = "PAPER"
  }

  expect_failures = [var.protection_level]
}
