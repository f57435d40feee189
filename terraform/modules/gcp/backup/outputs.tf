output "backup_plan" {
  description = "Id of the backup plan."
  value       = google_gke_backup_backup_plan.this.id
}

output "restore_plan" {
  description = "Id of the restore plan: `gcloud beta container backup-restore restores create --restore-plan`."
  value       = google_gke_backup_restore_plan.this.id
}
