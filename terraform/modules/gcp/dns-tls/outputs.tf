output "dns_zone" {
  description = "Name of the managed zone."
  value       = google_dns_managed_zone.this.name
}

output "domain" {
  description = "Domain that the environment answers under."
  value       = var.domain
}

output "name_servers" {
  description = "To these the parent domain delegates."
  value       = google_dns_managed_zone.this.name_servers
}
