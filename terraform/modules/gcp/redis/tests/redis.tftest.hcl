mock_provider "google" {
  source = "../../../tests/mocks/gcp"
}

variables {
  name              = "isa-prod"
  region            = "europe-west3"
  network           = "projects/example-isa/global/networks/isa-prod"
  high_availability = true
  memory_gb         = 5
  key               = "projects/example-isa/locations/europe-west3/keyRings/isa-prod/cryptoKeys/redis"
}

run "it_asks_for_a_password_over_tls" {
  command = plan

  assert {
    condition     = google_redis_instance.this.auth_enabled && google_redis_instance.this.transit_encryption_mode == "SERVER_AUTHENTICATION"
    error_message = "Redis must ask for a password and speak TLS."
  }
}

run "it_is_private_and_encrypted_with_our_key" {
  command = plan

  assert {
    condition     = google_redis_instance.this.connect_mode == "PRIVATE_SERVICE_ACCESS" && google_redis_instance.this.customer_managed_key == var.key
    error_message = "Redis must be private, with our key."
  }
}

run "an_hour_is_lost_at_most" {
  command = plan

  assert {
    condition     = google_redis_instance.this.persistence_config[0].persistence_mode == "RDB" && google_redis_instance.this.persistence_config[0].rdb_snapshot_period == "ONE_HOUR"
    error_message = "Snapshots must be taken every hour."
  }
}

run "it_never_forgets_by_itself" {
  command = plan

  assert {
    condition     = google_redis_instance.this.redis_configs["maxmemory-policy"] == "noeviction"
    error_message = "A full Redis must refuse writes, as the local one does."
  }
}

run "a_zone_may_be_lost" {
  command = plan

  assert {
    condition     = google_redis_instance.this.tier == "STANDARD_HA"
    error_message = "Production needs a second copy."
  }
}

run "no_memory_is_refused" {
  command = plan

  variables {
    memory_gb = 0
  }

  expect_failures = [var.memory_gb]
}
