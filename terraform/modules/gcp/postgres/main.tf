locals {
  # What the local set runs with, where Cloud SQL lets us say it, and what an auditor asks for.
  flags = {
    max_connections                     = "200"
    max_locks_per_transaction           = "256"
    jit                                 = "off"
    idle_in_transaction_session_timeout = "60000"   # ms
    temp_file_limit                     = "1048576" # kB
    log_checkpoints                     = "on"
    log_connections                     = "on"
    log_disconnections                  = "on"
    log_lock_waits                      = "on"
    log_hostname                        = "on"
    log_min_messages                    = "warning"
    log_min_error_statement             = "error"
    log_statement                       = "ddl"
    "cloudsql.enable_pgaudit"           = "on"
  }
}

resource "google_sql_database_instance" "this" {
  #checkov:skip=CKV_GCP_6:ENCRYPTED_ONLY refuses plain text; client certificates would be one more secret beside the password
  #checkov:skip=CKV2_GCP_13:Every statement's time would fill the log with what Query Insights shows better
  #checkov:skip=CKV_GCP_51:The flag is set in local.flags, whose dynamic block the scanner does not read; tests/postgres.tftest.hcl does
  #checkov:skip=CKV_GCP_52:The flag is set in local.flags, whose dynamic block the scanner does not read; tests/postgres.tftest.hcl does
  #checkov:skip=CKV_GCP_53:The flag is set in local.flags, whose dynamic block the scanner does not read; tests/postgres.tftest.hcl does
  #checkov:skip=CKV_GCP_54:The flag is set in local.flags, whose dynamic block the scanner does not read; tests/postgres.tftest.hcl does
  #checkov:skip=CKV_GCP_108:The flag is set in local.flags, whose dynamic block the scanner does not read; tests/postgres.tftest.hcl does
  #checkov:skip=CKV_GCP_109:The flag is set in local.flags, whose dynamic block the scanner does not read; tests/postgres.tftest.hcl does
  #checkov:skip=CKV_GCP_110:The flag is set in local.flags, whose dynamic block the scanner does not read; tests/postgres.tftest.hcl does
  #checkov:skip=CKV_GCP_111:The flag is set in local.flags, whose dynamic block the scanner does not read; tests/postgres.tftest.hcl does
  name                = var.name
  region              = var.region
  database_version    = var.database_version
  encryption_key_name = var.key
  deletion_protection = var.deletion_protection

  settings {
    tier                        = var.tier
    edition                     = "ENTERPRISE" # from 16 on the default is Enterprise Plus, which has other machines
    availability_type           = var.high_availability ? "REGIONAL" : "ZONAL"
    disk_type                   = "PD_SSD"
    disk_size                   = var.disk_gb
    disk_autoresize             = true
    deletion_protection_enabled = var.deletion_protection
    connector_enforcement       = "NOT_REQUIRED"

    ip_configuration {
      ipv4_enabled    = false
      private_network = var.network
      ssl_mode        = "ENCRYPTED_ONLY"
    }

    backup_configuration {
      enabled                        = true
      start_time                     = "01:00"
      point_in_time_recovery_enabled = true
      transaction_log_retention_days = 7

      backup_retention_settings {
        retained_backups = var.backup_days
      }
    }

    maintenance_window {
      day          = 7
      hour         = 3
      update_track = "stable"
    }

    insights_config {
      query_insights_enabled  = true
      record_application_tags = true
    }

    dynamic "database_flags" {
      for_each = local.flags

      content {
        name  = database_flags.key
        value = database_flags.value
      }
    }
  }

  lifecycle {
    ignore_changes = [settings[0].disk_size] # it grows by itself
  }
}

resource "google_sql_database_instance" "replica" {
  #checkov:skip=CKV_GCP_6:ENCRYPTED_ONLY refuses plain text; client certificates would be one more secret beside the password
  #checkov:skip=CKV2_GCP_13:Every statement's time would fill the log with what Query Insights shows better
  #checkov:skip=CKV_GCP_51:The flag is set in local.flags, whose dynamic block the scanner does not read; tests/postgres.tftest.hcl does
  #checkov:skip=CKV_GCP_52:The flag is set in local.flags, whose dynamic block the scanner does not read; tests/postgres.tftest.hcl does
  #checkov:skip=CKV_GCP_53:The flag is set in local.flags, whose dynamic block the scanner does not read; tests/postgres.tftest.hcl does
  #checkov:skip=CKV_GCP_54:The flag is set in local.flags, whose dynamic block the scanner does not read; tests/postgres.tftest.hcl does
  #checkov:skip=CKV_GCP_108:The flag is set in local.flags, whose dynamic block the scanner does not read; tests/postgres.tftest.hcl does
  #checkov:skip=CKV_GCP_109:The flag is set in local.flags, whose dynamic block the scanner does not read; tests/postgres.tftest.hcl does
  #checkov:skip=CKV_GCP_110:The flag is set in local.flags, whose dynamic block the scanner does not read; tests/postgres.tftest.hcl does
  #checkov:skip=CKV_GCP_111:The flag is set in local.flags, whose dynamic block the scanner does not read; tests/postgres.tftest.hcl does
  count = var.replica == null ? 0 : 1

  name                 = "${var.name}-replica"
  region               = var.replica.region
  master_instance_name = google_sql_database_instance.this.name
  database_version     = var.database_version
  encryption_key_name  = var.replica.key
  deletion_protection  = var.deletion_protection

  settings {
    tier                        = var.tier
    edition                     = "ENTERPRISE"
    availability_type           = "ZONAL"
    disk_type                   = "PD_SSD"
    disk_autoresize             = true
    deletion_protection_enabled = var.deletion_protection

    ip_configuration {
      ipv4_enabled    = false
      private_network = var.network
      ssl_mode        = "ENCRYPTED_ONLY"
    }

    dynamic "database_flags" {
      for_each = local.flags

      content {
        name  = database_flags.key
        value = database_flags.value
      }
    }
  }
}

resource "google_sql_user" "admin" {
  name                = var.admin_user
  instance            = google_sql_database_instance.this.name
  password_wo         = var.admin_password
  password_wo_version = var.admin_password_version
  deletion_policy     = "ABANDON" # it owns what it made; it goes with the instance
}
