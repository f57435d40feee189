# One key a purpose, and an identity that may use this key and no other. Two vaults: what Azure's services unwrap stands behind
# a firewall that lets them pass; Kubernetes' own key does not, as AKS's control plane is not among the services that may pass.

locals {
  has_copies = var.replica_location != ""
  purposes   = toset(["disks", "postgres", "kafka", "redis", "objects", "backup", "cluster"])

  vaults = merge(
    { services = var.location, cluster = var.location },
    local.has_copies ? { replica = var.replica_location } : {},
  )
  keys = merge(
    { for purpose in local.purposes : purpose => { vault = purpose == "cluster" ? "cluster" : "services", location = var.location } },
    local.has_copies ? { postgres-replica = { vault = "replica", location = var.replica_location } } : {},
  )
  # The backup vault has an identity of its own, to which its module gives the key.
  used = { for purpose, key in local.keys : purpose => key if purpose != "backup" }
}

resource "azurerm_key_vault" "this" {
  #checkov:skip=CKV_AZURE_109:The cluster's vault holds one key that only the cluster's identity may use; AKS reaches it from outside our network
  #checkov:skip=CKV_AZURE_189:Azure's services unwrap with the keys from outside our network; the firewall names who else may come
  #checkov:skip=CKV2_AZURE_32:A private endpoint would not serve Azure's own services, which are who uses the keys
  for_each = local.vaults

  name                          = "${var.name}-${substr(each.key, 0, 4)}-${var.unique}"
  location                      = each.value
  resource_group_name           = var.resource_group_name
  tenant_id                     = var.tenant_id
  sku_name                      = var.is_hardware ? "premium" : "standard"
  rbac_authorization_enabled    = true
  purge_protection_enabled      = true
  soft_delete_retention_days    = 90
  public_network_access_enabled = true

  network_acls {
    bypass         = "AzureServices"
    default_action = each.key == "cluster" ? "Allow" : "Deny"
    ip_rules       = var.operator_cidrs
  }
}

resource "azurerm_role_assignment" "administrator" {
  for_each = local.vaults

  scope                = azurerm_key_vault.this[each.key].id
  role_definition_name = "Key Vault Crypto Officer"
  principal_id         = var.administrator_id
}

resource "azurerm_key_vault_key" "this" {
  #checkov:skip=CKV_AZURE_112:A variable decides: production's keys are in hardware
  #checkov:skip=CKV_AZURE_40:Keys do not expire, they rotate: what an expired key encrypts could not be read any more
  for_each = local.keys

  name         = each.key
  key_vault_id = azurerm_key_vault.this[each.value.vault].id
  key_type     = var.is_hardware ? "RSA-HSM" : "RSA"
  key_size     = 3072
  key_opts     = ["wrapKey", "unwrapKey", "encrypt", "decrypt"]

  rotation_policy {
    expire_after         = "P2Y"
    notify_before_expiry = "P30D"

    automatic {
      time_after_creation = "P1Y"
    }
  }

  lifecycle {
    prevent_destroy = true # with the key goes everything that it encrypts, backups too
  }

  depends_on = [azurerm_role_assignment.administrator]
}

resource "azurerm_user_assigned_identity" "this" {
  for_each = local.used

  name                = "${var.name}-${each.key}"
  location            = each.value.location
  resource_group_name = var.resource_group_name
}

resource "azurerm_role_assignment" "this" {
  for_each = local.used

  scope                = azurerm_key_vault_key.this[each.key].resource_versionless_id
  role_definition_name = each.key == "cluster" ? "Key Vault Crypto User" : "Key Vault Crypto Service Encryption User"
  principal_id         = azurerm_user_assigned_identity.this[each.key].principal_id
  principal_type       = "ServicePrincipal"
}

resource "azurerm_disk_encryption_set" "this" {
  name                      = var.name
  location                  = var.location
  resource_group_name       = var.resource_group_name
  key_vault_key_id          = azurerm_key_vault_key.this["disks"].versionless_id
  encryption_type           = "EncryptionAtRestWithPlatformAndCustomerKeys"
  auto_key_rotation_enabled = true

  identity {
    type         = "UserAssigned"
    identity_ids = [azurerm_user_assigned_identity.this["disks"].id]
  }

  depends_on = [azurerm_role_assignment.this]
}
