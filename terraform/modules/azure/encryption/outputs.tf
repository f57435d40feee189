output "keys" {
  description = "By purpose: the key without its version (which follows rotations), with it, and the identity that may use it."
  value = {
    for purpose, key in azurerm_key_vault_key.this : purpose => {
      id           = key.versionless_id
      versioned_id = key.id
      identity_id  = azurerm_user_assigned_identity.this[purpose].id
      principal_id = azurerm_user_assigned_identity.this[purpose].principal_id
    }
  }
  depends_on = [azurerm_role_assignment.this]
}

output "disk_encryption_set_id" {
  description = "What encrypts the disks of nodes."
  value       = azurerm_disk_encryption_set.this.id
}
