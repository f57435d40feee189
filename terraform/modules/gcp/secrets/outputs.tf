output "project" {
  description = "Project that keeps the secrets."
  value       = data.google_project.this.project_id
}

output "secret_ids" {
  description = "Full id of each entry by the secret's name."
  value       = { for name, secret in google_secret_manager_secret.this : name => secret.id }
}

output "rotation_subscription" {
  description = "Subscription in which a message waits for each secret that is due."
  value       = google_pubsub_subscription.rotation.name
}
