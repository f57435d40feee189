output "identity_services" {
  description = "Service account of the services' pods."
  value       = google_service_account.this["services"].email
}

output "identity_external_secrets" {
  description = "Service account of external-secrets."
  value       = google_service_account.this["external-secrets"].email
}

output "identity_cert_manager" {
  description = "Service account of cert-manager."
  value       = google_service_account.this["cert-manager"].email
}

output "identity_external_dns" {
  description = "Service account of external-dns."
  value       = google_service_account.this["external-dns"].email
}

output "identity_loki" {
  description = "Service account of Loki."
  value       = google_service_account.this["loki"].email
}

output "identity_backup" {
  description = "Service account of the backup jobs."
  value       = google_service_account.this["backup"].email
}
