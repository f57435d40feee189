mock_provider "google" {
  source = "../../../tests/mocks/gcp"
}

variables {
  name           = "isa-prod"
  region         = "europe-west3"
  replica_region = "europe-west4"
  multi_region   = "eu"
  key            = "projects/example-isa/locations/europe-west3/keyRings/isa-prod/cryptoKeys/objects"
  backup_key     = "projects/example-isa/locations/eu/keyRings/isa-prod/cryptoKeys/objects-replica"
  loki_days      = 95
  backup_days    = 35
}

run "no_bucket_is_ever_public" {
  command = plan

  assert {
    condition     = alltrue([for bucket in [google_storage_bucket.loki, google_storage_bucket.backup, google_storage_bucket.access_logs] : bucket.public_access_prevention == "enforced" && bucket.uniform_bucket_level_access])
    error_message = "Public access must be impossible, whatever a bucket's rights say."
  }
}

run "buckets_are_encrypted_with_our_keys" {
  command = plan

  assert {
    condition     = google_storage_bucket.loki.encryption[0].default_kms_key_name == var.key && google_storage_bucket.backup.encryption[0].default_kms_key_name == var.backup_key
    error_message = "Each bucket needs our key, that of its location."
  }
}

run "a_backup_is_in_two_regions_within_a_quarter_of_an_hour" {
  command = plan

  assert {
    condition     = toset(google_storage_bucket.backup.custom_placement_config[0].data_locations) == toset(["EUROPE-WEST3", "EUROPE-WEST4"]) && google_storage_bucket.backup.location == "EU" && google_storage_bucket.backup.rpo == "ASYNC_TURBO"
    error_message = "Production's backups must be in two regions."
  }
}

run "what_is_deleted_can_be_had_back" {
  command = plan

  assert {
    condition     = google_storage_bucket.backup.versioning[0].enabled && google_storage_bucket.backup.soft_delete_policy[0].retention_duration_seconds == 2592000
    error_message = "Versions and deleted objects of the backup bucket must be kept for 30 days."
  }
}

run "reads_are_written_down" {
  command = plan

  assert {
    condition     = google_storage_bucket.backup.logging[0].log_bucket == google_storage_bucket.access_logs.name && google_storage_bucket.loki.logging[0].log_bucket == google_storage_bucket.access_logs.name
    error_message = "Access to both buckets must be logged."
  }
}

run "without_copies_one_region_keeps_all" {
  command = plan

  variables {
    replica_region = ""
  }

  assert {
    condition     = google_storage_bucket.backup.location == "europe-west3" && length(google_storage_bucket.backup.custom_placement_config) == 0
    error_message = "Without copies the bucket must be in the region."
  }
}
