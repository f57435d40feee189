output "policy" {
  description = "Name of the Cloud Armor policy."
  value       = google_compute_security_policy.this.name
}
