mock_provider "google" {
  source = "../../../tests/mocks/gcp"
}

variables {
  name        = "isa-prod"
  location    = "europe-west4"
  cluster_id  = "projects/example-isa/locations/europe-west3/clusters/isa-prod"
  retain_days = 35
  lock_days   = 7
  key         = "projects/example-isa/locations/europe-west4/keyRings/isa-prod/cryptoKeys/backup-replica"
}

run "an_hour_is_lost_at_most" {
  command = plan

  assert {
    condition     = google_gke_backup_backup_plan.this.backup_schedule[0].cron_schedule == "30 * * * *" && google_gke_backup_backup_plan.this.backup_config[0].include_volume_data
    error_message = "Volumes must be copied every hour."
  }
}

run "backups_are_elsewhere_and_encrypted_with_our_key" {
  command = plan

  assert {
    condition     = google_gke_backup_backup_plan.this.location == "europe-west4" && google_gke_backup_backup_plan.this.backup_config[0].encryption_key[0].gcp_kms_encryption_key == var.key
    error_message = "Backups must be in the other region, with that region's key."
  }
}

run "a_backup_cannot_be_deleted_at_once" {
  command = plan

  assert {
    condition     = google_gke_backup_backup_plan.this.retention_policy[0].backup_delete_lock_days == 7 && google_gke_backup_backup_plan.this.retention_policy[0].backup_retain_days == 35
    error_message = "Nobody may delete a backup of the last week."
  }
}

run "data_is_what_is_copied" {
  command = plan

  assert {
    condition     = contains(google_gke_backup_backup_plan.this.backup_config[0].selected_namespaces[0].namespaces, "isa-data")
    error_message = "The namespace of the stores must be among those copied."
  }
}

run "a_lock_of_a_year_is_refused" {
  command = plan

  variables {
    lock_days = 365
  }

  expect_failures = [var.lock_days]
}
