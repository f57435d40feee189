# A managed identity for each kind of workload, which trusts the named service accounts of the cluster and nobody else.

locals {
  # workload => the Kubernetes service accounts (namespace:name) that act as it
  subjects = {
    services         = concat([for service in var.services : "isa-cloud:${service}"], ["isa-cloud:topics"])
    external-secrets = ["external-secrets:external-secrets"]
    cert-manager     = ["cert-manager:cert-manager"]
    external-dns     = ["external-dns:external-dns"]
    loki             = ["isa-data:loki"]
    backup           = ["isa-data:backup"]
  }
  trusted = merge([
    for workload, subjects in local.subjects : { for subject in subjects : subject => workload }
  ]...)
  # Event Hubs is entered with a connection string, so the services' identity has no rights of its own.
  rights = {
    external-secrets = { workload = "external-secrets", role = "Key Vault Secrets User", scope = var.vault_id }
    cert-manager     = { workload = "cert-manager", role = "DNS Zone Contributor", scope = var.dns_zone_id }
    external-dns     = { workload = "external-dns", role = "DNS Zone Contributor", scope = var.dns_zone_id }
    zones            = { workload = "external-dns", role = "Reader", scope = var.resource_group_id } # it looks for its zone there
    loki             = { workload = "loki", role = "Storage Blob Data Contributor", scope = var.container_ids["loki"] }
    backup           = { workload = "backup", role = "Storage Blob Data Contributor", scope = var.container_ids["backup"] }
  }
}

resource "azurerm_user_assigned_identity" "this" {
  for_each = local.subjects

  name                = "${var.name}-${each.key}"
  location            = var.location
  resource_group_name = var.resource_group_name
}

resource "azurerm_federated_identity_credential" "this" {
  for_each = local.trusted

  name                      = replace(each.key, ":", "-")
  user_assigned_identity_id = azurerm_user_assigned_identity.this[each.value].id
  issuer                    = var.oidc_issuer_url
  subject                   = "system:serviceaccount:${each.key}"
  audience                  = ["api://AzureADTokenExchange"]
}

resource "azurerm_role_assignment" "this" {
  for_each = local.rights

  scope                = each.value.scope
  role_definition_name = each.value.role
  principal_id         = azurerm_user_assigned_identity.this[each.value.workload].principal_id
  principal_type       = "ServicePrincipal"
}
