output "backend" {
  description = "The file backend.hcl of live/gcp/<env>."
  value       = <<-EOT
    bucket = "${google_storage_bucket.state.name}"
  EOT
}

output "identity_provider" {
  description = "What the CI's login names as its provider."
  value       = google_iam_workload_identity_pool_provider.forge.name
}

output "accounts" {
  description = "Service accounts of the CI: plan on pull requests, apply in the environment."
  value       = { for name, account in google_service_account.ci : name => account.email }
}
