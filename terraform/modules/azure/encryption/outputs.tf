output "keys" {
  description = "By purpose: the key without its version (which follows rotations), with it, and the identity that may use it."
  value = {
    for purpose in keys(local.used) : purpose => {
      id           = azurerm_key_vault_key.this[purpose].versionless_id
      versioned_id = azurerm_key_vault_key.this[purpose].id
      identity_id  = azurerm_user_assigned_identity.this[purpose].id
      principal_id = azurerm_user_assigned_identity.this[purpose].principal_id
    }
  }
  depends_on = [azurerm_role_assignment.this]
}

output "backup_key" {
  description = "The key of the backup vault: as services call it, and as rights are given to it."
  value = {
    id          = azurerm_key_vault_key.this["backup"].versionless_id
    resource_id = azurerm_key_vault_key.this["backup"].resource_versionless_id
  }
}

output "disk_encryption_set_id" {
  description = "What encrypts the disks of nodes."
  value       = azurerm_disk_encryption_set.this.id
}
