mock_provider "aws" {
  source = "../../../tests/mocks/aws"
}

variables {
  environment         = "prod"
  domain              = "isa.example.com"
  cidr                = "10.40.0.0/16"
  zones               = ["eu-central-1a", "eu-central-1b", "eu-central-1c"]
  nat_per_zone        = true
  public_access_cidrs = ["198.51.100.0/24"]
  administrators      = { platform = "arn:aws:iam::111122223333:role/platform-admin" }
  backup_days         = 35
  loki_days           = 95
  log_retention_days  = 365
  secret_names        = ["redis-password"]
  alarm_emails        = ["platform@example.com"]
  monthly_budget_usd  = 5000

  node_groups = {
    system = { instance_types = ["m6i.large"], min = 3, max = 6 }
  }

  postgres = { instance_class = "db.m7g.large", multi_az = true, storage_gib = 100, max_storage_gib = 1000 }
  kafka    = { instance_type = "kafka.m7g.large", volume_gib = 250, max_volume_gib = 2000 }
  redis    = { node_type = "cache.m7g.large", nodes = 3 }

  replica = {
    bucket_arn = "arn:aws:s3:::isa-prod-copies"
    key_arn    = "arn:aws:kms:eu-west-1:111122223333:key/copies"
    vault_arn  = "arn:aws:backup:eu-west-1:111122223333:backup-vault:isa-prod-replica"
  }
}

run "everything_is_a_string_as_annotations_are" {
  assert {
    condition     = alltrue([for name, value in output.platform : value == tostring(value) && value != null])
    error_message = "Annotations are strings: none of the platform's values may be a number or null."
  }

  assert {
    condition     = output.platform.postgres_port == "5432" && output.platform.redis_port == "6379" && output.platform.secret_prefix == "isa-prod-" && output.platform.kafka_username == ""
    error_message = "A value of the contract has changed."
  }

  assert {
    condition     = output.platform.object_store_endpoint == "https://s3.eu-central-1.amazonaws.com"
    error_message = "The object store's endpoint is S3's of the region."
  }
}

run "production_with_one_nat_gateway_is_refused" {
  command = plan

  variables {
    nat_per_zone = false
  }

  expect_failures = [var.nat_per_zone]
}

run "production_without_a_standby_is_refused" {
  command = plan

  variables {
    postgres = { instance_class = "db.m7g.large", multi_az = false, storage_gib = 100, max_storage_gib = 1000 }
  }

  expect_failures = [var.postgres]
}

run "production_with_a_lone_cache_is_refused" {
  command = plan

  variables {
    redis = { node_type = "cache.m7g.large", nodes = 1 }
  }

  expect_failures = [var.redis]
}

run "production_on_spot_nodes_is_refused" {
  command = plan

  variables {
    node_groups = {
      system = { instance_types = ["m6i.large"], min = 3, max = 6 }
      work   = { instance_types = ["m6i.large"], min = 3, max = 6, spot = true }
    }
  }

  expect_failures = [var.node_groups]
}

run "production_with_short_backups_is_refused" {
  command = plan

  variables {
    backup_days = 7
  }

  expect_failures = [var.backup_days]
}

run "production_without_copies_elsewhere_is_refused" {
  command = plan

  variables {
    replica = null
  }

  expect_failures = [var.replica]
}

run "production_with_short_logs_is_refused" {
  command = plan

  variables {
    log_retention_days = 30
  }

  expect_failures = [var.log_retention_days]
}

run "a_retention_that_cloudwatch_does_not_know_is_refused" {
  command = plan

  variables {
    log_retention_days = 1000
  }

  expect_failures = [var.log_retention_days]
}

run "an_environment_without_values_is_refused" {
  command = plan

  variables {
    environment = "qa"
  }

  expect_failures = [var.environment]
}
