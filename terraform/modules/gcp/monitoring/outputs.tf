output "notification_channel" {
  description = "Id of the channel that alerts go to."
  value       = google_monitoring_notification_channel.email.id
}
