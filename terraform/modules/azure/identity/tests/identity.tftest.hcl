mock_provider "azurerm" {
  source = "../../../tests/mocks/azure"
}

variables {
  name                = "isa-prod"
  location            = "westeurope"
  resource_group_name = "isa-prod"
  resource_group_id   = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/isa-prod"
  oidc_issuer_url     = "https://westeurope.oic.prod-aks.azure.com/22222222-2222-2222-2222-222222222222/33333333-3333-3333-3333-333333333333/"
  services            = ["tasks", "users"]
  vault_id            = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/isa-prod/providers/Microsoft.KeyVault/vaults/isa-prod-secr-a1b2c3"
  dns_zone_id         = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/isa-prod/providers/Microsoft.Network/dnsZones/isa.example.com"
  container_ids       = { loki = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/isa-prod/providers/Microsoft.Storage/storageAccounts/isaproda1b2c3/blobServices/default/containers/loki", backup = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/isa-prod/providers/Microsoft.Storage/storageAccounts/isaproda1b2c3/blobServices/default/containers/backup" }
}

run "only_named_service_accounts_act_as_an_identity" {
  command = plan

  assert {
    condition     = toset([for credential in azurerm_federated_identity_credential.this : credential.subject]) == toset([for account in ["isa-cloud:tasks", "isa-cloud:users", "isa-cloud:topics", "external-secrets:external-secrets", "cert-manager:cert-manager", "external-dns:external-dns", "isa-data:loki", "isa-data:backup"] : "system:serviceaccount:${account}"]) && alltrue([for credential in azurerm_federated_identity_credential.this : credential.audience[0] == "api://AzureADTokenExchange"])
    error_message = "Exactly the service accounts of the charts may act as Azure's identities."
  }
}

run "a_workload_has_one_right" {
  command = plan

  assert {
    condition     = azurerm_role_assignment.this["loki"].scope == var.container_ids["loki"] && azurerm_role_assignment.this["backup"].scope == var.container_ids["backup"] && azurerm_role_assignment.this["external-secrets"].role_definition_name == "Key Vault Secrets User" && !contains(keys(azurerm_role_assignment.this), "services")
    error_message = "Each workload gets what it needs, where it needs it."
  }
}

run "too_many_services_are_refused" {
  command = plan

  variables {
    services = [for number in range(20) : "service-${number}"]
  }

  expect_failures = [var.services]
}
