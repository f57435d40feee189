# What lives in volumes of the cluster: the object store, vectors, streams, Dapr's scheduler. PostgreSQL, Redis and Kafka
# have their own backups (modules postgres and redis, and the jobs of the chart `data`).

resource "google_gke_backup_backup_plan" "this" {
  name     = var.name
  location = var.location
  cluster  = var.cluster_id

  retention_policy {
    backup_retain_days      = var.retain_days
    backup_delete_lock_days = var.lock_days
  }

  backup_schedule {
    cron_schedule = var.schedule
  }

  backup_config {
    include_volume_data = true
    include_secrets     = true

    encryption_key {
      gcp_kms_encryption_key = var.key
    }

    selected_namespaces {
      namespaces = var.namespaces
    }
  }
}

resource "google_gke_backup_restore_plan" "this" {
  name        = var.name
  location    = var.location
  cluster     = var.cluster_id
  backup_plan = google_gke_backup_backup_plan.this.id

  restore_config {
    all_namespaces                   = true
    namespaced_resource_restore_mode = "MERGE_SKIP_ON_CONFLICT" # ArgoCD owns what is in git; only what is missing comes back
    volume_data_restore_policy       = "RESTORE_VOLUME_DATA_FROM_BACKUP"
    cluster_resource_conflict_policy = "USE_EXISTING_VERSION"

    cluster_resource_restore_scope {
      selected_group_kinds {
        resource_group = ""
        resource_kind  = "PersistentVolume"
      }
    }
  }
}
