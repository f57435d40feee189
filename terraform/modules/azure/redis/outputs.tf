output "host" {
  description = "Host of Redis, which resolves inside the network."
  value       = azurerm_managed_redis.this.hostname
}

output "port" {
  description = "Port of Redis, TLS."
  value       = "10000"
}

output "password" {
  description = "Redis' password."
  value       = azurerm_managed_redis.this.default_database[0].primary_access_key
  sensitive   = true
}

output "id" {
  description = "Id of Redis."
  value       = azurerm_managed_redis.this.id
}
