output "notification_channels" {
  description = "Ids of the channels that alerts go to."
  value       = local.channels
}
