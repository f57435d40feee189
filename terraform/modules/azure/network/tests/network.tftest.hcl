mock_provider "azurerm" {
  source = "../../../tests/mocks/azure"
}

variables {
  name                    = "isa-prod"
  location                = "westeurope"
  resource_group_name     = "isa-prod"
  nat_addresses           = 2
  ddos_protection_plan_id = ""
  cidrs = {
    network    = "10.110.0.0/16"
    nodes      = "10.110.0.0/20"
    pods       = "10.194.0.0/16"
    api_server = "10.110.16.0/28"
    postgres   = "10.110.17.0/24"
    endpoints  = "10.110.18.0/24"
  }
}

run "what_no_rule_allows_is_denied" {
  command = plan

  assert {
    condition     = alltrue([for rule in azurerm_network_security_rule.deny : rule.access == "Deny" && rule.priority == 4096 && rule.source_address_prefix == "*"]) && length(azurerm_network_security_rule.deny) == 2
    error_message = "Both groups must end with a refusal: Azure's own last rules allow the whole network."
  }
}

run "the_internet_reaches_the_gateway_only" {
  command = plan

  assert {
    condition     = toset(azurerm_network_security_rule.edge.destination_port_ranges) == toset(["80", "443"]) && azurerm_network_security_rule.edge.source_address_prefix == "Internet"
    error_message = "From outside only the gateway's ports may be reached."
  }
}

run "data_is_for_the_nodes_only" {
  command = plan

  assert {
    condition     = azurerm_network_security_rule.data.source_address_prefix == "10.110.0.0/20" && toset(azurerm_network_security_rule.data.destination_port_ranges) == toset(["443", "5432", "6432", "9093", "10000"])
    error_message = "Only nodes may reach the stores, and only at their ports."
  }
}

run "pods_of_the_overlay_may_talk" {
  command = plan

  assert {
    condition     = contains(azurerm_network_security_rule.inside.source_address_prefixes, "10.194.0.0/16") && contains(azurerm_network_security_rule.inside.destination_address_prefixes, "10.194.0.0/16")
    error_message = "The overlay is routed: a group that does not know the pods' addresses cuts nodes off each other."
  }
}

run "private_endpoints_obey_the_rules" {
  command = plan

  assert {
    condition     = azurerm_subnet.endpoints.private_endpoint_network_policies == "Enabled"
    error_message = "Without this the rules do not count for private endpoints."
  }
}

run "no_subnet_has_a_way_out_of_its_own" {
  command = plan

  assert {
    condition     = alltrue([for subnet in [azurerm_subnet.nodes, azurerm_subnet.api_server, azurerm_subnet.postgres, azurerm_subnet.endpoints] : !subnet.default_outbound_access_enabled])
    error_message = "What goes out must come from the NAT's addresses."
  }
}

run "managed_services_have_private_names" {
  command = plan

  assert {
    condition     = toset([for zone in azurerm_private_dns_zone.this : zone.name]) == toset(["privatelink.blob.core.windows.net", "privatelink.servicebus.windows.net", "privatelink.redis.azure.net", "privatelink.vaultcore.azure.net", "isa-prod.private.postgres.database.azure.com"])
    error_message = "Each managed service's name must resolve to its private address."
  }
}

run "a_ddos_plan_protects_the_network" {
  command = plan

  variables {
    ddos_protection_plan_id = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/shared/providers/Microsoft.Network/ddosProtectionPlans/organisation"
  }

  assert {
    condition     = one(azurerm_virtual_network.this.ddos_protection_plan).enable
    error_message = "The plan that is given must be used."
  }
}

run "a_range_that_is_none_is_refused" {
  command = plan

  variables {
    cidrs = {
      network    = "10.110.0.0/16"
      nodes      = "10.110.0.0/20"
      pods       = "10.194.0.0/16"
      api_server = "10.110.16.0/28"
      postgres   = "10.110.17.0/24"
      endpoints  = "10.110.18.0"
    }
  }

  expect_failures = [var.cidrs]
}

run "no_way_out_is_refused" {
  command = plan

  variables {
    nat_addresses = 0
  }

  expect_failures = [var.nat_addresses]
}
