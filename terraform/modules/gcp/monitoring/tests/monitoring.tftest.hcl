mock_provider "google" {
  source = "../../../tests/mocks/gcp"
}

variables {
  name                  = "isa-prod"
  alarm_emails          = ["platform@example.com"]
  postgres_instance     = "isa-prod"
  redis_instance        = "isa-prod"
  rotation_subscription = "isa-prod-secret-rotation"
  log_days              = 365
  billing_account       = "012345-6789AB-CDEF01"
  monthly_budget        = 6000
}

run "every_managed_service_has_an_alert" {
  command = plan

  assert {
    condition     = alltrue([for name in ["postgres-cpu", "postgres-disk", "postgres-connections", "redis-memory", "nat-ports", "secrets-due"] : contains(keys(google_monitoring_alert_policy.this), name)])
    error_message = "Each managed service must have its alerts."
  }
}

run "alerts_name_our_resources" {
  command = plan

  assert {
    condition     = strcontains(google_monitoring_alert_policy.this["postgres-cpu"].conditions[0].condition_threshold[0].filter, "example-isa:isa-prod") && strcontains(google_monitoring_alert_policy.this["secrets-due"].conditions[0].condition_threshold[0].filter, "isa-prod-secret-rotation")
    error_message = "An alert must watch the environment's own resources."
  }
}

run "connections_are_counted_over_all_databases" {
  command = plan

  assert {
    condition     = google_monitoring_alert_policy.this["postgres-connections"].conditions[0].condition_threshold[0].aggregations[0].cross_series_reducer == "REDUCE_SUM"
    error_message = "The limit of connections is the instance's; the metric has a series for each database."
  }
}

run "reads_of_data_are_written_down" {
  command = plan

  assert {
    condition     = toset([for config in google_project_iam_audit_config.this["secretmanager.googleapis.com"].audit_log_config : config.log_type]) == toset(["ADMIN_READ", "DATA_READ", "DATA_WRITE"]) && google_logging_project_bucket_config.default.retention_days == 365
    error_message = "Who read which secret must be in the audit log, for a year."
  }
}

run "the_bill_is_watched" {
  command = plan

  assert {
    condition     = google_billing_budget.this[0].amount[0].specified_amount[0].units == "6000" && length(google_billing_budget.this[0].threshold_rules) == 4
    error_message = "The budget must tell at half, at four fifths, at all of it, and when it will not suffice."
  }
}

run "without_a_billing_account_there_is_no_budget" {
  command = plan

  variables {
    billing_account = ""
  }

  assert {
    condition     = length(google_billing_budget.this) == 0
    error_message = "An empty billing account means that somebody else watches the bill."
  }
}

run "nobody_to_tell_is_refused" {
  command = plan

  variables {
    alarm_emails = []
  }

  expect_failures = [var.alarm_emails]
}

run "no_budget_is_refused" {
  command = plan

  variables {
    monthly_budget = 0
  }

  expect_failures = [var.monthly_budget]
}
