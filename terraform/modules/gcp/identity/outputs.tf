output "emails" {
  description = "E-mail of each workload's service account."
  value       = { for workload, account in google_service_account.this : workload => account.email }
}
