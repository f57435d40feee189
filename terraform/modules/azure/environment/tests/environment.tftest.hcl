mock_provider "azurerm" {
  source = "../../../tests/mocks/azure"
}

variables {
  environment             = "prod"
  location                = "westeurope"
  replica_location        = "northeurope"
  domain                  = "isa.example.com"
  ddos_protection_plan_id = ""
  operator_cidrs          = ["198.51.100.0/24"]
  is_api_private          = true
  administrator_group_ids = ["11111111-1111-1111-1111-111111111111"]
  alarm_emails            = ["platform@example.com"]
  monthly_budget          = 6500
  is_protected            = true
  system_pool             = { vm_size = "Standard_D4as_v5", minimum = 3, maximum = 6 }
  node_pools              = { work = { vm_size = "Standard_D4as_v5", minimum = 3, maximum = 20, disk_gb = 128 } }
  postgres                = { sku_name = "GP_Standard_D4ads_v5", storage_mb = 131072 }
  processing_units        = 1
  redis_sku               = "Balanced_B5"
  backup_days             = 35
  loki_days               = 95
  log_retention_days      = 365
  postgres_admin_password = "Aa0123456789abcdef0123456789abcdef"
  cidrs = {
    network    = "10.110.0.0/16"
    nodes      = "10.110.0.0/20"
    api_server = "10.110.16.0/28"
    postgres   = "10.110.17.0/24"
    endpoints  = "10.110.18.0/24"
    pods       = "10.194.0.0/16"
    services   = "10.200.0.0/16"
  }
}

run "every_topic_of_the_charts_is_made" {
  command = plan

  assert {
    condition     = length(module.kafka.topics) == length(local.topics) && length(local.topics) > 20 && contains(module.kafka.topics, "task.created.dlq")
    error_message = "The topics are those of charts/derived/topics.yaml, dead letters too."
  }
}

run "the_charts_are_told_where_everything_is" {
  command = plan

  assert {
    condition     = output.platform.postgres_admin_secret == "isa-prod-postgres-superuser" && output.platform.postgres_port == "5432" && output.platform.redis_port == "10000" && output.platform.kafka_username == "$ConnectionString" && output.platform.loki_bucket == "loki"
    error_message = "The outputs must have the contract's meaning."
  }
}

run "names_that_the_world_shares_are_our_own" {
  command = plan

  assert {
    condition     = length(local.unique) == 6 && endswith(output.platform.kafka_brokers, "${local.unique}.servicebus.windows.net:9093")
    error_message = "The subscription must make names our own, the same at every plan."
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
    replica_location = ""
  }

  expect_failures = [var.replica_location]
}

run "everybody_is_no_operator" {
  command = plan

  variables {
    operator_cidrs = ["0.0.0.0/0"]
  }

  expect_failures = [var.operator_cidrs]
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
    log_retention_days = 30
  }

  expect_failures = [var.log_retention_days]
}

run "a_short_password_is_refused" {
  command = plan

  variables {
    postgres_admin_password = "postgres"
  }

  expect_failures = [var.postgres_admin_password]
}
