output "zone_id" {
  description = "Resource id of the zone."
  value       = azurerm_dns_zone.this.id
}

output "name_servers" {
  description = "To these the parent domain delegates."
  value       = azurerm_dns_zone.this.name_servers
}
