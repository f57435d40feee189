mock_provider "google" {
  source = "../../../tests/mocks/gcp"
}

variables {
  name               = "isa-prod"
  region             = "europe-west3"
  subnetwork         = "projects/example-isa/regions/europe-west3/subnetworks/isa-prod-nodes"
  vcpus              = 3
  memory_gb          = 6
  key                = "projects/example-isa/locations/europe-west3/keyRings/isa-prod/cryptoKeys/kafka"
  client             = "isa-prod-services@example-isa.iam.gserviceaccount.com"
  credential_version = 1
  topics = {
    "task.created"    = { partitions = 3, replicas = 3, config = { "cleanup.policy" = "delete", "retention.ms" = "604800000", "min.insync.replicas" = "2" } }
    "control.changed" = { partitions = 1, replicas = 3, config = { "cleanup.policy" = "compact", "min.insync.replicas" = "2" } }
  }
}

run "topics_are_as_the_events_want_them" {
  command = plan

  assert {
    condition     = google_managed_kafka_topic.this["task.created"].partition_count == 3 && google_managed_kafka_topic.this["task.created"].replication_factor == 3 && google_managed_kafka_topic.this["task.created"].configs["retention.ms"] == "604800000" && google_managed_kafka_topic.this["control.changed"].configs["cleanup.policy"] == "compact"
    error_message = "A topic must have the partitions, copies and settings of charts/derived/topics.yaml."
  }
}

run "what_brokers_store_is_encrypted_with_our_key" {
  command = plan

  assert {
    condition     = google_managed_kafka_cluster.this.gcp_config[0].kms_key == var.key
    error_message = "The brokers' disks need our key."
  }
}

run "the_services_log_in_by_tls" {
  command = plan

  assert {
    condition     = output.brokers == "bootstrap.isa-prod.europe-west3.managedkafka.example-isa.cloud.goog:9092" && output.username == var.client && google_project_iam_member.client.role == "roles/managedkafka.client"
    error_message = "The services log in as their account, which may produce and consume and nothing else."
  }
}

run "memory_is_told_in_bytes" {
  command = plan

  assert {
    condition     = google_managed_kafka_cluster.this.capacity_config[0].memory_bytes == "6442450944" && google_managed_kafka_cluster.this.capacity_config[0].vcpu_count == "3"
    error_message = "6 GiB are 6442450944 bytes."
  }
}

run "two_cores_are_refused" {
  command = plan

  variables {
    vcpus = 2
  }

  expect_failures = [var.vcpus]
}

run "too_little_memory_is_refused" {
  command = plan

  variables {
    memory_gb = 2
  }

  expect_failures = [var.memory_gb]
}

run "two_copies_are_refused" {
  command = plan

  variables {
    topics = { "task.created" = { partitions = 3, replicas = 2, config = {} } }
  }

  expect_failures = [var.topics]
}
