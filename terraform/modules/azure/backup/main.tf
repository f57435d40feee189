# What lives in volumes of the cluster, every four hours (Azure's shortest) as snapshots in the region (all that the provider
# can ask for), and PostgreSQL once a week for a year. Points in time of PostgreSQL are its own (module postgres); hourly copies
# that leave the region are the backup jobs of the chart `dr`, which write to the object store.

resource "azurerm_resource_group" "snapshots" {
  name     = "${var.name}-snapshots"
  location = var.location
}

resource "azurerm_data_protection_backup_vault" "this" {
  name                         = var.name
  location                     = var.location
  resource_group_name          = var.resource_group_name
  datastore_type               = "VaultStore"
  redundancy                   = var.has_copies ? "GeoRedundant" : "ZoneRedundant"
  cross_region_restore_enabled = var.has_copies ? true : null
  soft_delete                  = "On"
  retention_duration_in_days   = 14
  immutability                 = var.is_protected ? "Unlocked" : "Disabled" # lock it by hand once you are sure: there is no way back

  identity {
    type = "SystemAssigned"
  }
}

resource "azurerm_role_assignment" "key" {
  scope                = var.key.resource_id
  role_definition_name = "Key Vault Crypto Service Encryption User"
  principal_id         = azurerm_data_protection_backup_vault.this.identity[0].principal_id
  principal_type       = "ServicePrincipal"
}

resource "azurerm_data_protection_backup_vault_customer_managed_key" "this" {
  data_protection_backup_vault_id = azurerm_data_protection_backup_vault.this.id
  key_vault_key_id                = var.key.id

  depends_on = [azurerm_role_assignment.key]
}

# --- Volumes and resources of the cluster

resource "azurerm_kubernetes_cluster_extension" "backup" {
  name              = "azure-aks-backup"
  cluster_id        = var.cluster_id
  extension_type    = "microsoft.dataprotection.kubernetes"
  release_train     = "stable"
  release_namespace = "dataprotection-microsoft"

  configuration_settings = {
    "configuration.backupStorageLocation.bucket"                = var.storage.container
    "configuration.backupStorageLocation.config.storageAccount" = var.storage.account_name
    "configuration.backupStorageLocation.config.resourceGroup"  = var.resource_group_name
    "configuration.backupStorageLocation.config.subscriptionId" = var.subscription_id
    "configuration.backupStorageLocation.config.useAAD"         = "true"
    "credentials.tenantId"                                      = var.tenant_id
  }
}

resource "azurerm_kubernetes_cluster_trusted_access_role_binding" "backup" {
  name                  = "backup"
  kubernetes_cluster_id = var.cluster_id
  source_resource_id    = azurerm_data_protection_backup_vault.this.id
  roles                 = ["Microsoft.DataProtection/backupVaults/backup-operator"]
}

locals {
  vault = azurerm_data_protection_backup_vault.this.identity[0].principal_id
  agent = azurerm_kubernetes_cluster_extension.backup.aks_assigned_identity[0].principal_id

  rights = {
    vault-reads-cluster    = { principal = local.vault, role = "Reader", scope = var.cluster_id }
    vault-reads-snapshots  = { principal = local.vault, role = "Reader", scope = azurerm_resource_group.snapshots.id }
    vault-takes-snapshots  = { principal = local.vault, role = "Disk Snapshot Contributor", scope = azurerm_resource_group.snapshots.id }
    vault-copies-disks     = { principal = local.vault, role = "Data Operator for Managed Disks", scope = azurerm_resource_group.snapshots.id }
    vault-reads-objects    = { principal = local.vault, role = "Storage Blob Data Reader", scope = var.storage.account_id }
    vault-reads-postgres   = { principal = local.vault, role = "PostgreSQL Flexible Server Long Term Retention Backup Role", scope = var.server_id }
    cluster-makes-them     = { principal = var.cluster_principal_id, role = "Contributor", scope = azurerm_resource_group.snapshots.id }
    agent-writes-resources = { principal = local.agent, role = "Storage Blob Data Contributor", scope = var.storage.account_id }
  }
}

resource "azurerm_role_assignment" "this" {
  for_each = local.rights

  scope                = each.value.scope
  role_definition_name = each.value.role
  principal_id         = each.value.principal
  principal_type       = "ServicePrincipal"
}

resource "azurerm_data_protection_backup_policy_kubernetes_cluster" "this" {
  name                            = "volumes"
  vault_name                      = azurerm_data_protection_backup_vault.this.name
  resource_group_name             = var.resource_group_name
  backup_repeating_time_intervals = ["R/2026-01-01T00:30:00+00:00/PT4H"]
  time_zone                       = "UTC"

  default_retention_rule {
    life_cycle {
      duration        = "P${var.snapshot_days}D"
      data_store_type = "OperationalStore"
    }
  }

}

resource "azurerm_data_protection_backup_instance_kubernetes_cluster" "this" {
  name                         = "volumes"
  location                     = var.location
  vault_id                     = azurerm_data_protection_backup_vault.this.id
  kubernetes_cluster_id        = var.cluster_id
  snapshot_resource_group_name = azurerm_resource_group.snapshots.name
  backup_policy_id             = azurerm_data_protection_backup_policy_kubernetes_cluster.this.id

  backup_datasource_parameters {
    included_namespaces              = var.namespaces
    cluster_scoped_resources_enabled = true
    volume_snapshot_enabled          = true
  }

  depends_on = [
    azurerm_role_assignment.this,
    azurerm_kubernetes_cluster_trusted_access_role_binding.backup,
  ]
}

# --- PostgreSQL, for longer than it keeps itself

resource "azurerm_data_protection_backup_policy_postgresql_flexible_server" "this" {
  name                            = "postgres"
  vault_id                        = azurerm_data_protection_backup_vault.this.id
  backup_repeating_time_intervals = ["R/2026-01-04T03:00:00+00:00/P1W"]
  time_zone                       = "UTC"

  default_retention_rule {
    life_cycle {
      duration        = "P12M"
      data_store_type = "VaultStore"
    }
  }
}

resource "azurerm_data_protection_backup_instance_postgresql_flexible_server" "this" {
  name             = "postgres"
  location         = var.location
  vault_id         = azurerm_data_protection_backup_vault.this.id
  server_id        = var.server_id
  backup_policy_id = azurerm_data_protection_backup_policy_postgresql_flexible_server.this.id

  depends_on = [azurerm_role_assignment.this]
}
