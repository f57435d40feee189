output "brokers" {
  description = "Kafka's bootstrap servers, TLS."
  value       = "${azurerm_eventhub_namespace.this.name}.servicebus.windows.net:9093"
}

output "username" {
  description = "SASL user name: the password is a connection string."
  value       = "$ConnectionString"
}

output "password" {
  description = "SASL password."
  value       = azurerm_eventhub_namespace_authorization_rule.services.primary_connection_string
  sensitive   = true
}

output "namespace_id" {
  description = "Id of the namespace."
  value       = azurerm_eventhub_namespace.this.id
}

output "topics" {
  description = "Names of the topics."
  value       = keys(azurerm_eventhub.this)
}
