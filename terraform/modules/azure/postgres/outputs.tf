output "host" {
  description = "Host of PostgreSQL's writer, which resolves inside the network."
  value       = azurerm_postgresql_flexible_server.this.fqdn
}

output "port" {
  description = "Port of PostgreSQL."
  value       = "5432"
}

output "admin_user" {
  description = "The administrator that makes databases and roles."
  value       = azurerm_postgresql_flexible_server.this.administrator_login
}

output "server_id" {
  description = "Id of the server."
  value       = azurerm_postgresql_flexible_server.this.id
}
