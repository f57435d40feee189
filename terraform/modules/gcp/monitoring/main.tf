# What the cloud sees and Prometheus inside the cluster does not: managed services, backups, the bill.

data "google_project" "this" {}

locals {
  channels = [for channel in google_monitoring_notification_channel.email : channel.id]
  database = "${data.google_project.this.project_id}:${var.postgres_instance}"
  alerts = {
    postgres-cpu = {
      what      = "PostgreSQL uses more than 80 % of its processors"
      filter    = "resource.type = \"cloudsql_database\" AND resource.labels.database_id = \"${local.database}\" AND metric.type = \"cloudsql.googleapis.com/database/cpu/utilization\""
      threshold = 0.8
      aligner   = "ALIGN_MEAN"
    }
    postgres-memory = {
      what      = "PostgreSQL uses more than 90 % of its memory"
      filter    = "resource.type = \"cloudsql_database\" AND resource.labels.database_id = \"${local.database}\" AND metric.type = \"cloudsql.googleapis.com/database/memory/utilization\""
      threshold = 0.9
      aligner   = "ALIGN_MEAN"
    }
    postgres-disk = {
      what      = "PostgreSQL's disk is fuller than 80 %"
      filter    = "resource.type = \"cloudsql_database\" AND resource.labels.database_id = \"${local.database}\" AND metric.type = \"cloudsql.googleapis.com/database/disk/utilization\""
      threshold = 0.8
      aligner   = "ALIGN_MEAN"
    }
    postgres-connections = {
      what      = "PostgreSQL has more than 160 of its 200 connections in use"
      filter    = "resource.type = \"cloudsql_database\" AND resource.labels.database_id = \"${local.database}\" AND metric.type = \"cloudsql.googleapis.com/database/postgresql/num_backends\""
      threshold = 160
      aligner   = "ALIGN_MAX"
      reducer   = "REDUCE_SUM" # over the databases of the instance
    }
    redis-memory = {
      what      = "Redis uses more than 80 % of its memory; full, it refuses writes"
      filter    = "resource.type = \"redis_instance\" AND resource.labels.instance_id = monitoring.regex.full_match(\".*/${var.redis_instance}\") AND metric.type = \"redis.googleapis.com/stats/memory/usage_ratio\""
      threshold = 0.8
      aligner   = "ALIGN_MAX"
    }
    nat-ports = {
      what      = "The NAT drops connections, as its addresses have no ports left"
      filter    = "resource.type = \"nat_gateway\" AND resource.labels.gateway_name = \"${var.name}\" AND metric.type = \"router.googleapis.com/nat/dropped_sent_packets_count\""
      threshold = 0
      aligner   = "ALIGN_DELTA"
    }
    secrets-due = {
      what      = "Secrets are due for new values: pull ${var.rotation_subscription} to see which"
      filter    = "resource.type = \"pubsub_subscription\" AND resource.labels.subscription_id = \"${var.rotation_subscription}\" AND metric.type = \"pubsub.googleapis.com/subscription/num_undelivered_messages\""
      threshold = 0
      aligner   = "ALIGN_MAX"
    }
  }
}

resource "google_monitoring_notification_channel" "email" {
  for_each = var.alarm_emails

  display_name = "${var.name}: ${each.value}"
  type         = "email"
  labels       = { email_address = each.value }
}

resource "google_monitoring_alert_policy" "this" {
  for_each = local.alerts

  display_name          = "${var.name}: ${each.key}"
  combiner              = "OR"
  notification_channels = local.channels

  documentation {
    content = each.value.what
  }

  conditions {
    display_name = each.value.what

    condition_threshold {
      filter          = each.value.filter
      comparison      = "COMPARISON_GT"
      threshold_value = each.value.threshold
      duration        = "300s"

      aggregations {
        alignment_period     = "300s"
        per_series_aligner   = each.value.aligner
        cross_series_reducer = lookup(each.value, "reducer", "REDUCE_NONE")
      }
    }
  }

  alert_strategy {
    auto_close = "86400s"
  }
}

resource "google_monitoring_alert_policy" "backup" {
  display_name          = "${var.name}: backup-failed"
  combiner              = "OR"
  notification_channels = local.channels

  documentation {
    content = "A backup of the cluster or of PostgreSQL failed. Look at it before the next: the objective is to lose an hour at most."
  }

  conditions {
    display_name = "A backup failed"

    condition_matched_log {
      filter = "severity >= ERROR AND (protoPayload.serviceName = \"gkebackup.googleapis.com\" OR (resource.type = \"cloudsql_database\" AND protoPayload.methodName : \"backup\"))"
    }
  }

  alert_strategy {
    auto_close = "86400s"

    notification_rate_limit {
      period = "3600s"
    }
  }
}

resource "google_logging_project_bucket_config" "default" {
  project        = data.google_project.this.project_id
  location       = "global"
  bucket_id      = "_Default"
  retention_days = var.log_days
}

resource "google_project_iam_audit_config" "this" {
  for_each = var.audited_services

  project = data.google_project.this.project_id
  service = each.value

  dynamic "audit_log_config" {
    for_each = ["ADMIN_READ", "DATA_READ", "DATA_WRITE"]

    content {
      log_type = audit_log_config.value
    }
  }
}

resource "google_billing_budget" "this" {
  count = var.billing_account == "" ? 0 : 1

  billing_account = var.billing_account
  display_name    = var.name

  budget_filter {
    projects = ["projects/${data.google_project.this.number}"]
  }

  amount {
    specified_amount {
      units = tostring(var.monthly_budget)
    }
  }

  dynamic "threshold_rules" {
    for_each = [0.5, 0.8, 1]

    content {
      threshold_percent = threshold_rules.value
    }
  }

  threshold_rules {
    threshold_percent = 1
    spend_basis       = "FORECASTED_SPEND"
  }

  all_updates_rule {
    monitoring_notification_channels = local.channels
  }
}
