# The vault. Key Vault has no entries without values, so those that Azure does not make itself come with their first values
# (terraform/README.md, "First secrets"). When one nears its end, Key Vault says so; `monitoring` turns that into a message to
# people: a new value is a matter of two sides, so a person or `isa` makes it, not the store.

resource "azurerm_key_vault" "this" {
  #checkov:skip=CKV_AZURE_189:Operators write first values from the networks named; pods come by the private endpoint
  name                          = "${var.name}-secr-${var.unique}"
  location                      = var.location
  resource_group_name           = var.resource_group_name
  tenant_id                     = var.tenant_id
  sku_name                      = "standard"
  rbac_authorization_enabled    = true
  purge_protection_enabled      = true
  soft_delete_retention_days    = 90
  public_network_access_enabled = true

  network_acls {
    bypass         = "AzureServices"
    default_action = "Deny"
    ip_rules       = var.operator_cidrs
  }
}

resource "azurerm_role_assignment" "administrator" {
  scope                = azurerm_key_vault.this.id
  role_definition_name = "Key Vault Secrets Officer"
  principal_id         = var.administrator_id
}

resource "azurerm_key_vault_secret" "this" {
  for_each = var.value_versions

  name             = "${var.prefix}${each.key}"
  key_vault_id     = azurerm_key_vault.this.id
  content_type     = "text/plain"
  value_wo         = var.values[each.key]
  value_wo_version = each.value
  expiration_date  = timeadd(plantimestamp(), "${var.rotation_days * 24}h")

  lifecycle {
    ignore_changes = [expiration_date] # counted from the day of the value
  }

  depends_on = [azurerm_role_assignment.administrator]
}

resource "azurerm_private_endpoint" "this" {
  name                = "${var.name}-secrets"
  location            = var.location
  resource_group_name = var.resource_group_name
  subnet_id           = var.subnet_id

  private_service_connection {
    name                           = "secrets"
    private_connection_resource_id = azurerm_key_vault.this.id
    subresource_names              = ["vault"]
    is_manual_connection           = false
  }

  private_dns_zone_group {
    name                 = "secrets"
    private_dns_zone_ids = [var.private_zone_id]
  }
}

resource "azurerm_eventgrid_system_topic" "this" {
  name                = "${var.name}-secrets"
  location            = var.location
  resource_group_name = var.resource_group_name
  source_resource_id  = azurerm_key_vault.this.id
  topic_type          = "Microsoft.KeyVault.vaults"

  identity {
    type = "SystemAssigned"
  }
}

resource "azurerm_monitor_diagnostic_setting" "this" {
  name                       = "logs"
  target_resource_id         = azurerm_key_vault.this.id
  log_analytics_workspace_id = var.log_workspace_id

  enabled_log {
    category = "AuditEvent" # who read which secret, and which near their end
  }
}
