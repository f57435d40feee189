data "google_project" "this" {}

resource "google_managed_kafka_cluster" "this" {
  cluster_id = var.name
  location   = var.region

  capacity_config {
    vcpu_count   = tostring(var.vcpus)
    memory_bytes = tostring(var.memory_gb * 1024 * 1024 * 1024)
  }

  gcp_config {
    kms_key = var.key

    access_config {
      network_configs {
        subnet = var.subnetwork
      }
    }
  }

  rebalance_config {
    mode = "AUTO_REBALANCE_ON_SCALE_UP"
  }

  lifecycle {
    prevent_destroy = true # with the cluster go its topics
  }
}

resource "google_managed_kafka_topic" "this" {
  for_each = var.topics

  cluster            = google_managed_kafka_cluster.this.cluster_id
  location           = var.region
  topic_id           = each.key
  partition_count    = each.value.partitions
  replication_factor = each.value.replicas
  configs            = each.value.config

  lifecycle {
    prevent_destroy = true # with the topic go its records: see the runbook before you rename one
  }
}

resource "google_project_iam_member" "client" {
  project = data.google_project.this.project_id
  role    = "roles/managedkafka.client"
  member  = "serviceAccount:${var.client}"
}

# Dapr's Kafka component has no token source for Google's identities, so the services log in with SASL/PLAIN:
# the account's e-mail and a key of it. The key is in the state, which bootstrap/gcp encrypts and few may read.
resource "google_service_account_key" "client" {
  service_account_id = "projects/${data.google_project.this.project_id}/serviceAccounts/${var.client}"
  keepers            = { version = var.credential_version }

  lifecycle {
    create_before_destroy = true
  }
}
