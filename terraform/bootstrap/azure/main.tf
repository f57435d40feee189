# What must be there before anything else: where Terraform keeps its state, and who the CI is. Applied once a subscription, by a
# person, with its own state kept beside it until `terraform init -migrate-state` moves it into the container that it made
# (terraform/modules/azure/README.md).

provider "azurerm" {
  subscription_id     = var.subscription_id
  storage_use_azuread = true

  features {}
}

data "azurerm_client_config" "current" {}

locals {
  unique = substr(sha256(var.subscription_id), 0, 8)

  # A pull request may look (plan); only a job in the environment of that name, which the forge guards by reviewers, may change
  # something (apply). Who gives rights is an owner, whatever the role is called.
  identities = {
    plan  = { subject = "repo:${var.repository}:pull_request", role = "Reader" }
    apply = { subject = "repo:${var.repository}:environment:${var.environment}", role = "Owner" }
  }
}

resource "azurerm_resource_group" "this" {
  name     = "isa-terraform"
  location = var.location
}

# Disks of nodes are encrypted by the machines that carry them, too: a feature that a subscription asks for once.
resource "azurerm_resource_provider_feature_registration" "host_encryption" {
  name          = "EncryptionAtHost"
  provider_name = "Microsoft.Compute"
}

resource "azurerm_storage_account" "state" {
  #checkov:skip=CKV_AZURE_33:There are no queues in this account
  #checkov:skip=CKV_AZURE_59:The firewall refuses everybody but the networks named
  #checkov:skip=CKV2_AZURE_1:The key of the first thing that is made has nowhere to live yet; Azure's keys encrypt it, twice
  #checkov:skip=CKV2_AZURE_33:People and runners come from outside: there is no network yet
  #checkov:skip=CKV2_AZURE_41:There are no shared keys, so nothing could sign an access signature but Entra's
  name                              = "isatf${local.unique}"
  location                          = var.location
  resource_group_name               = azurerm_resource_group.this.name
  account_tier                      = "Standard"
  account_kind                      = "StorageV2"
  account_replication_type          = "GZRS"
  min_tls_version                   = "TLS1_2"
  https_traffic_only_enabled        = true
  shared_access_key_enabled         = false
  default_to_oauth_authentication   = true
  allow_nested_items_to_be_public   = false
  cross_tenant_replication_enabled  = false
  local_user_enabled                = false
  infrastructure_encryption_enabled = true

  network_rules {
    default_action = "Deny"
    bypass         = ["AzureServices"]
    ip_rules       = var.operator_cidrs
  }

  blob_properties {
    versioning_enabled = true

    delete_retention_policy {
      days = 90
    }

    container_delete_retention_policy {
      days = 90
    }
  }

  lifecycle {
    prevent_destroy = true
  }
}

resource "azurerm_storage_container" "state" {
  #checkov:skip=CKV2_AZURE_21:The activity log and the account's versions say who changed the state, and from what
  name                  = "state"
  storage_account_id    = azurerm_storage_account.state.id
  container_access_type = "private"
}

# The CI: no secrets, but the forge's own token, and only of this repository.

resource "azurerm_user_assigned_identity" "ci" {
  for_each = local.identities

  name                = "isa-terraform-${each.key}"
  location            = var.location
  resource_group_name = azurerm_resource_group.this.name
}

resource "azurerm_federated_identity_credential" "ci" {
  for_each = local.identities

  name                      = "forge"
  user_assigned_identity_id = azurerm_user_assigned_identity.ci[each.key].id
  issuer                    = "https://token.actions.githubusercontent.com"
  subject                   = each.value.subject
  audience                  = ["api://AzureADTokenExchange"]
}

resource "azurerm_role_assignment" "ci" {
  for_each = local.identities

  scope                = "/subscriptions/${var.subscription_id}"
  role_definition_name = each.value.role
  principal_id         = azurerm_user_assigned_identity.ci[each.key].principal_id
  principal_type       = "ServicePrincipal"
}

resource "azurerm_role_assignment" "state" {
  for_each = merge(
    { for name, identity in azurerm_user_assigned_identity.ci : name => identity.principal_id }, # a plan takes the lock, too
    { person = data.azurerm_client_config.current.object_id },
  )

  scope                = azurerm_storage_account.state.id
  role_definition_name = "Storage Blob Data Contributor"
  principal_id         = each.value
}
