mock_provider "google" {
  source = "../../../tests/mocks/gcp"
}

variables {
  name                   = "isa-prod"
  region                 = "europe-west3"
  network                = "projects/example-isa/global/networks/isa-prod"
  tier                   = "db-custom-4-16384"
  disk_gb                = 100
  high_availability      = true
  backup_days            = 35
  key                    = "projects/example-isa/locations/europe-west3/keyRings/isa-prod/cryptoKeys/postgres"
  replica                = { region = "europe-west4", key = "projects/example-isa/locations/europe-west4/keyRings/isa-prod/cryptoKeys/postgres-replica" }
  admin_user             = "isa"
  admin_password         = "0123456789abcdef0123456789abcdef"
  admin_password_version = 1
  deletion_protection    = true
}

run "it_has_no_public_address_and_takes_no_plain_text" {
  command = plan

  assert {
    condition     = alltrue([for instance in concat([google_sql_database_instance.this], google_sql_database_instance.replica) : !instance.settings[0].ip_configuration[0].ipv4_enabled && instance.settings[0].ip_configuration[0].ssl_mode == "ENCRYPTED_ONLY"])
    error_message = "Primary and replica must be private and refuse plain text."
  }
}

run "everything_stored_is_encrypted_with_our_key" {
  command = plan

  assert {
    condition     = google_sql_database_instance.this.encryption_key_name == var.key && google_sql_database_instance.replica[0].encryption_key_name == var.replica.key
    error_message = "Each region's disk needs that region's key."
  }
}

run "a_point_in_time_can_be_restored" {
  command = plan

  assert {
    condition     = google_sql_database_instance.this.settings[0].backup_configuration[0].point_in_time_recovery_enabled && google_sql_database_instance.this.settings[0].backup_configuration[0].enabled && google_sql_database_instance.this.settings[0].backup_configuration[0].backup_retention_settings[0].retained_backups == 35
    error_message = "Daily backups and the log between them must be kept."
  }
}

run "a_zone_and_a_region_may_be_lost" {
  command = plan

  assert {
    condition     = google_sql_database_instance.this.settings[0].availability_type == "REGIONAL" && google_sql_database_instance.replica[0].region == "europe-west4"
    error_message = "Production needs a standby in another zone and a replica in another region."
  }
}

run "terraform_knows_no_password" {
  command = plan

  assert {
    condition     = google_sql_user.admin.password == null && google_sql_user.admin.password_wo_version == 1
    error_message = "The password must be handed over by the write-only argument: another one would be in the state."
  }
}

run "the_server_has_what_the_adapter_relies_on" {
  command = plan

  assert {
    condition     = { for flag in google_sql_database_instance.this.settings[0].database_flags : flag.name => flag.value if contains(["max_connections", "temp_file_limit", "max_locks_per_transaction", "idle_in_transaction_session_timeout", "jit"], flag.name) } == { max_connections = "200", temp_file_limit = "1048576", max_locks_per_transaction = "256", idle_in_transaction_session_timeout = "60000", jit = "off" }
    error_message = "These are the settings that docker-compose.yml gives its PostgreSQL; both must be the same."
  }
}

run "what_happens_is_written_down" {
  command = plan

  assert {
    condition     = alltrue([for name in ["log_checkpoints", "log_connections", "log_disconnections", "log_lock_waits", "log_hostname", "cloudsql.enable_pgaudit"] : contains([for flag in google_sql_database_instance.this.settings[0].database_flags : flag.name if flag.value == "on"], name)]) && toset(google_sql_database_instance.replica[0].settings[0].database_flags) == toset(google_sql_database_instance.this.settings[0].database_flags)
    error_message = "The flags that an auditor asks for must be on, on the replica too."
  }
}

run "one_machine_is_enough_for_trying_out" {
  command = plan

  variables {
    high_availability = false
    replica           = null
  }

  assert {
    condition     = google_sql_database_instance.this.settings[0].availability_type == "ZONAL" && length(google_sql_database_instance.replica) == 0
    error_message = "Without high availability and copies there must be one machine."
  }
}

run "an_old_postgres_is_refused" {
  command = plan

  variables {
    database_version = "POSTGRES_15"
  }

  expect_failures = [var.database_version]
}

run "a_shared_core_is_refused" {
  command = plan

  variables {
    tier = "db-f1-micro"
  }

  expect_failures = [var.tier]
}

run "three_days_of_backups_are_refused" {
  command = plan

  variables {
    backup_days = 3
  }

  expect_failures = [var.backup_days]
}
