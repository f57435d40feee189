mock_provider "google" {
  source = "../../../tests/mocks/gcp"
}

variables {
  environment             = "prod"
  region                  = "europe-west3"
  replica_region          = "europe-west4"
  multi_region            = "eu"
  domain                  = "isa.example.com"
  authorized_networks     = {}
  alarm_emails            = ["platform@example.com"]
  secret_names            = ["redis-password", "smtp-password"]
  billing_account         = ""
  monthly_budget          = 6000
  is_protected            = true
  release_channel         = "STABLE"
  postgres                = { tier = "db-custom-4-16384", disk_gb = 100 }
  kafka                   = { vcpus = 3, memory_gb = 6 }
  redis_gb                = 5
  backup_days             = 35
  loki_days               = 95
  log_days                = 365
  postgres_admin_password = "0123456789abcdef0123456789abcdef"
  cidrs = {
    nodes         = "10.80.0.0/20"
    pods          = "10.80.64.0/18"
    services      = "10.80.32.0/20"
    control_plane = "10.80.16.0/28"
    managed       = "10.80.48.0/20"
  }
  node_pools = {
    work = { machine_type = "n2d-standard-4", minimum = 3, maximum = 20, disk_gb = 120, spot = false }
  }
}

run "every_topic_of_the_charts_is_made" {
  command = plan

  assert {
    condition     = length(module.kafka.topics) == length(local.topics) && length(local.topics) > 20 && contains(module.kafka.topics, "task.created.dlq")
    error_message = "The topics are those of charts/derived/topics.yaml, dead letters too."
  }
}

run "what_the_cloud_made_is_in_the_store" {
  command = plan

  assert {
    condition     = alltrue([for name in ["postgres-superuser", "kafka-password", "redis-password", "redis-ca"] : contains(keys(module.secrets.secret_ids), name)])
    error_message = "The passwords that Google makes, and Redis' authority, must be entries of the store."
  }
}

run "the_charts_are_told_where_everything_is" {
  command = plan

  assert {
    condition     = output.platform.postgres_admin_secret == "isa-prod-postgres-superuser" && output.platform.postgres_port == "5432" && output.platform.waf_id == "isa-prod" && output.platform.secret_store == "example-isa"
    error_message = "The outputs must have the contract's meaning."
  }
}

run "an_unknown_environment_is_refused" {
  command = plan

  variables {
    environment = "test"
  }

  expect_failures = [var.environment]
}

run "production_without_copies_is_refused" {
  command = plan

  variables {
    replica_region = ""
  }

  expect_failures = [var.replica_region]
}

run "unprotected_production_is_refused" {
  command = plan

  variables {
    is_protected = false
  }

  expect_failures = [var.is_protected]
}

run "a_week_of_backups_is_refused_in_production" {
  command = plan

  variables {
    backup_days = 7
  }

  expect_failures = [var.backup_days]
}

run "a_month_of_logs_is_refused_in_production" {
  command = plan

  variables {
    log_days = 30
  }

  expect_failures = [var.log_days]
}

run "a_short_password_is_refused" {
  command = plan

  variables {
    postgres_admin_password = "postgres"
  }

  expect_failures = [var.postgres_admin_password]
}
