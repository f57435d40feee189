output "endpoint" {
  description = "Endpoint of Blob Storage."
  value       = azurerm_storage_account.this.primary_blob_endpoint
}

output "account_id" {
  description = "Id of the storage account."
  value       = azurerm_storage_account.this.id
}

output "containers" {
  description = "Name of each container by what it is for."
  value       = { for purpose, container in azurerm_storage_container.this : purpose => container.name }
}

output "container_ids" {
  description = "Id of each container, to which rights are given."
  value       = { for purpose, container in azurerm_storage_container.this : purpose => "${azurerm_storage_account.this.id}/blobServices/default/containers/${container.name}" }
}

output "account_name" {
  description = "Name of the storage account."
  value       = azurerm_storage_account.this.name
}
