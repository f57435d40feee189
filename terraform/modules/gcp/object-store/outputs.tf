output "endpoint" {
  description = "Endpoint of Cloud Storage."
  value       = "https://storage.googleapis.com"
}

output "loki_bucket" {
  description = "Bucket of Loki's chunks and index."
  value       = google_storage_bucket.loki.name
}

output "backup_bucket" {
  description = "Bucket that the backup jobs write."
  value       = google_storage_bucket.backup.name
}
