output "network_id" {
  description = "Id of the network."
  value       = azurerm_virtual_network.this.id
}

output "subnet_ids" {
  description = "Subnets by name, once their rules and their way out are there."
  value = {
    nodes      = azurerm_subnet.nodes.id
    api_server = azurerm_subnet.api_server.id
    postgres   = azurerm_subnet.postgres.id
    endpoints  = azurerm_subnet.endpoints.id
  }
  depends_on = [
    azurerm_subnet_network_security_group_association.this,
    azurerm_subnet_nat_gateway_association.nodes,
    azurerm_nat_gateway_public_ip_association.this,
  ]
}

output "private_zone_ids" {
  description = "Private zones by the service that has its names there."
  value       = { for service, zone in azurerm_private_dns_zone.this : service => zone.id }
  depends_on  = [azurerm_private_dns_zone_virtual_network_link.this]
}

output "nat_addresses" {
  description = "Addresses that outgoing traffic comes from."
  value       = azurerm_public_ip.nat[*].ip_address
}
