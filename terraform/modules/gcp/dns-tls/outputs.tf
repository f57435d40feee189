output "zone" {
  description = "Name of the managed zone."
  value       = google_dns_managed_zone.this.name
}

output "name_servers" {
  description = "To these the parent domain delegates."
  value       = google_dns_managed_zone.this.name_servers
}
