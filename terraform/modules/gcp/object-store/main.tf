data "google_project" "this" {}

locals {
  prefix     = "${data.google_project.this.project_id}-${var.name}" # bucket names are shared by the whole world
  has_copies = var.replica_region != ""
}

resource "google_storage_bucket" "access_logs" {
  #checkov:skip=CKV_GCP_62:This is the bucket that access is logged to
  #checkov:skip=CKV_GCP_78:A log is written once; what is deleted can be had back for a week
  name                        = "${local.prefix}-access-logs"
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"

  encryption {
    default_kms_key_name = var.key
  }

  soft_delete_policy {
    retention_duration_seconds = 7 * 24 * 3600
  }

  lifecycle_rule {
    action {
      type = "Delete"
    }
    condition {
      age = 365
    }
  }
}

resource "google_storage_bucket_iam_member" "access_logs" {
  bucket = google_storage_bucket.access_logs.name
  role   = "roles/storage.objectCreator"
  member = "group:cloud-storage-analytics@google.com"
}

resource "google_storage_bucket" "loki" {
  name                        = "${local.prefix}-loki"
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"

  encryption {
    default_kms_key_name = var.key
  }

  versioning {
    enabled = true
  }

  logging {
    log_bucket = google_storage_bucket.access_logs.name
  }

  lifecycle_rule { # what Loki forgets is gone a week later
    action {
      type = "Delete"
    }
    condition {
      days_since_noncurrent_time = 7
    }
  }

  lifecycle_rule {
    action {
      type = "Delete"
    }
    condition {
      age = var.loki_days
    }
  }
}

resource "google_storage_bucket" "backup" {
  name                        = "${local.prefix}-backup"
  location                    = local.has_copies ? upper(var.multi_region) : var.region
  rpo                         = local.has_copies ? "ASYNC_TURBO" : null # in the other region within 15 minutes
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"

  dynamic "custom_placement_config" {
    for_each = local.has_copies ? [upper(var.replica_region)] : []

    content {
      data_locations = [upper(var.region), custom_placement_config.value]
    }
  }

  encryption {
    default_kms_key_name = var.backup_key
  }

  versioning {
    enabled = true
  }

  # Whoever may write here may delete, but not for good before this time is over.
  soft_delete_policy {
    retention_duration_seconds = 30 * 24 * 3600
  }

  logging {
    log_bucket = google_storage_bucket.access_logs.name
  }

  lifecycle_rule { # what the jobs have replaced; what they still write on to stays, however old
    action {
      type = "Delete"
    }
    condition {
      age            = var.backup_days
      matches_prefix = ["replaced/"]
      with_state     = "ANY"
    }
  }

  lifecycle_rule {
    action {
      type = "Delete"
    }
    condition {
      days_since_noncurrent_time = var.backup_days
      with_state                 = "ARCHIVED"
    }
  }

  lifecycle {
    prevent_destroy = true
  }
}
