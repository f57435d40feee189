output "brokers" {
  description = "Kafka's bootstrap servers, TLS."
  value       = "bootstrap.${google_managed_kafka_cluster.this.cluster_id}.${var.region}.managedkafka.${data.google_project.this.project_id}.cloud.goog:9092"
}

output "username" {
  description = "SASL user name."
  value       = var.client
}

output "password" {
  description = "SASL password: the account's key, base64."
  value       = google_service_account_key.client.private_key
  sensitive   = true
}

output "topics" {
  description = "Names of the topics."
  value       = keys(google_managed_kafka_topic.this)
}
