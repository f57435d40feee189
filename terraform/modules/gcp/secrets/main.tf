# An entry for each secret. What the cloud does not make itself gets its first value from elsewhere (terraform/README.md,
# "First secrets"). When a value is due, Secret Manager says so to a topic, and `monitoring` turns that into a message to
# people: a new value is a matter of two sides, so a person or `isa` makes it, not the store.

data "google_project" "this" {}

resource "google_pubsub_topic" "rotation" {
  name                       = "${var.name}-secret-rotation"
  kms_key_name               = var.topics_key
  message_retention_duration = "604800s"
}

resource "google_pubsub_topic_iam_member" "rotation" {
  topic  = google_pubsub_topic.rotation.id
  role   = "roles/pubsub.publisher"
  member = "serviceAccount:service-${data.google_project.this.number}@gcp-sa-secretmanager.iam.gserviceaccount.com"
}

resource "google_pubsub_subscription" "rotation" {
  name                       = "${var.name}-secret-rotation"
  topic                      = google_pubsub_topic.rotation.id
  message_retention_duration = "604800s"

  expiration_policy {
    ttl = "" # never
  }
}

resource "google_secret_manager_secret" "this" {
  for_each = var.secret_names

  secret_id           = "${var.prefix}${each.key}"
  version_destroy_ttl = "604800s" # a destroyed version can be brought back for a week

  replication {
    user_managed {
      dynamic "replicas" {
        for_each = var.keys

        content {
          location = replicas.key

          customer_managed_encryption {
            kms_key_name = replicas.value
          }
        }
      }
    }
  }

  rotation {
    rotation_period    = "${var.rotation_days * 24 * 3600}s"
    next_rotation_time = timeadd(plantimestamp(), "${var.rotation_days * 24}h")
  }

  topics {
    name = google_pubsub_topic.rotation.id
  }

  lifecycle {
    ignore_changes = [rotation[0].next_rotation_time] # counted from the first day on
  }

  depends_on = [google_pubsub_topic_iam_member.rotation]
}

resource "google_secret_manager_secret_version" "this" {
  for_each = var.value_versions

  secret                 = google_secret_manager_secret.this[each.key].id
  secret_data_wo         = var.values[each.key]
  secret_data_wo_version = each.value
  deletion_policy        = "DISABLE"
}
