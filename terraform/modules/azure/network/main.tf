# One private network: no machine has an address of its own outside. In comes what a load balancer forwards, out goes what the
# NAT translates. Managed services have addresses in it, and their public ones are closed.

locals {
  private_zones = {
    blob       = "privatelink.blob.core.windows.net"
    event_hubs = "privatelink.servicebus.windows.net"
    redis      = "privatelink.redis.azure.net"
    vault      = "privatelink.vaultcore.azure.net"
    postgres   = "${var.name}.private.postgres.database.azure.com"
  }
}

resource "azurerm_virtual_network" "this" {
  name                = var.name
  location            = var.location
  resource_group_name = var.resource_group_name
  address_space       = [var.cidrs.network]

  dynamic "ddos_protection_plan" {
    for_each = var.ddos_protection_plan_id == "" ? [] : [var.ddos_protection_plan_id]

    content {
      id     = ddos_protection_plan.value
      enable = true
    }
  }
}

resource "azurerm_subnet" "nodes" {
  name                            = "nodes"
  resource_group_name             = var.resource_group_name
  virtual_network_name            = azurerm_virtual_network.this.name
  address_prefixes                = [var.cidrs.nodes]
  default_outbound_access_enabled = false
}

resource "azurerm_subnet" "api_server" {
  #checkov:skip=CKV2_AZURE_31:AKS owns this subnet and its rules; a group of ours could cut the API server off its nodes
  name                            = "api-server"
  resource_group_name             = var.resource_group_name
  virtual_network_name            = azurerm_virtual_network.this.name
  address_prefixes                = [var.cidrs.api_server]
  default_outbound_access_enabled = false

  delegation {
    name = "aks"

    service_delegation {
      name    = "Microsoft.ContainerService/managedClusters"
      actions = ["Microsoft.Network/virtualNetworks/subnets/join/action"]
    }
  }
}

resource "azurerm_subnet" "postgres" {
  name                            = "postgres"
  resource_group_name             = var.resource_group_name
  virtual_network_name            = azurerm_virtual_network.this.name
  address_prefixes                = [var.cidrs.postgres]
  default_outbound_access_enabled = false

  delegation {
    name = "postgres"

    service_delegation {
      name    = "Microsoft.DBforPostgreSQL/flexibleServers"
      actions = ["Microsoft.Network/virtualNetworks/subnets/join/action"]
    }
  }
}

resource "azurerm_subnet" "endpoints" {
  name                              = "endpoints"
  resource_group_name               = var.resource_group_name
  virtual_network_name              = azurerm_virtual_network.this.name
  address_prefixes                  = [var.cidrs.endpoints]
  default_outbound_access_enabled   = false
  private_endpoint_network_policies = "Enabled" # else the rules below would not count for them
}

# Way out: fixed addresses, one NAT for nodes.

resource "azurerm_public_ip" "nat" {
  count = var.nat_addresses

  name                = "${var.name}-nat-${count.index}"
  location            = var.location
  resource_group_name = var.resource_group_name
  allocation_method   = "Static"
  sku                 = "Standard"
}

resource "azurerm_nat_gateway" "this" {
  name                    = var.name
  location                = var.location
  resource_group_name     = var.resource_group_name
  sku_name                = "Standard"
  idle_timeout_in_minutes = 10
}

resource "azurerm_nat_gateway_public_ip_association" "this" {
  count = var.nat_addresses

  nat_gateway_id       = azurerm_nat_gateway.this.id
  public_ip_address_id = azurerm_public_ip.nat[count.index].id
}

resource "azurerm_subnet_nat_gateway_association" "nodes" {
  subnet_id      = azurerm_subnet.nodes.id
  nat_gateway_id = azurerm_nat_gateway.this.id
}

# Who may talk to whom. Azure's own last rules allow the whole network, so each group ends with a refusal.

resource "azurerm_network_security_group" "nodes" {
  name                = "${var.name}-nodes"
  location            = var.location
  resource_group_name = var.resource_group_name
}

resource "azurerm_network_security_rule" "edge" {
  #checkov:skip=CKV_AZURE_160:Port 80 only redirects to 443, and lets certificates be ordered
  name                        = "edge"
  description                 = "What the gateway's load balancer forwards"
  resource_group_name         = var.resource_group_name
  network_security_group_name = azurerm_network_security_group.nodes.name
  priority                    = 100
  direction                   = "Inbound"
  access                      = "Allow"
  protocol                    = "Tcp"
  source_address_prefix       = "Internet"
  source_port_range           = "*"
  destination_address_prefix  = "*"
  destination_port_ranges     = ["80", "443"]
}

resource "azurerm_network_security_rule" "inside" {
  name                         = "inside"
  description                  = "Nodes, pods (the overlay is routed, not wrapped) and the API server; network policies decide between pods"
  resource_group_name          = var.resource_group_name
  network_security_group_name  = azurerm_network_security_group.nodes.name
  priority                     = 110
  direction                    = "Inbound"
  access                       = "Allow"
  protocol                     = "*"
  source_address_prefixes      = [var.cidrs.nodes, var.cidrs.pods, var.cidrs.api_server]
  source_port_range            = "*"
  destination_address_prefixes = [var.cidrs.nodes, var.cidrs.pods]
  destination_port_range       = "*"
}

resource "azurerm_network_security_group" "data" {
  name                = "${var.name}-data"
  location            = var.location
  resource_group_name = var.resource_group_name
}

resource "azurerm_network_security_rule" "data" {
  name                         = "nodes"
  description                  = "PostgreSQL, Event Hubs' Kafka, Managed Redis, HTTPS of blobs and secrets"
  resource_group_name          = var.resource_group_name
  network_security_group_name  = azurerm_network_security_group.data.name
  priority                     = 100
  direction                    = "Inbound"
  access                       = "Allow"
  protocol                     = "Tcp"
  source_address_prefix        = var.cidrs.nodes
  source_port_range            = "*"
  destination_address_prefixes = [var.cidrs.postgres, var.cidrs.endpoints]
  destination_port_ranges      = ["443", "5432", "6432", "9093", "10000"]
}

resource "azurerm_network_security_rule" "replication" {
  name                        = "replication"
  description                 = "PostgreSQL's standby, which lives in the same subnet"
  resource_group_name         = var.resource_group_name
  network_security_group_name = azurerm_network_security_group.data.name
  priority                    = 110
  direction                   = "Inbound"
  access                      = "Allow"
  protocol                    = "Tcp"
  source_address_prefix       = var.cidrs.postgres
  source_port_range           = "*"
  destination_address_prefix  = var.cidrs.postgres
  destination_port_ranges     = ["5432", "6432"]
}

resource "azurerm_network_security_rule" "balancers" {
  for_each = {
    nodes = azurerm_network_security_group.nodes.name
    data  = azurerm_network_security_group.data.name
  }

  name                        = "balancers"
  description                 = "Azure's load balancers ask whether a machine is well"
  resource_group_name         = var.resource_group_name
  network_security_group_name = each.value
  priority                    = 4000
  direction                   = "Inbound"
  access                      = "Allow"
  protocol                    = "*"
  source_address_prefix       = "AzureLoadBalancer"
  source_port_range           = "*"
  destination_address_prefix  = "*"
  destination_port_range      = "*"
}

resource "azurerm_network_security_rule" "deny" {
  for_each = {
    nodes = azurerm_network_security_group.nodes.name
    data  = azurerm_network_security_group.data.name
  }

  name                        = "deny"
  description                 = "What no rule allows"
  resource_group_name         = var.resource_group_name
  network_security_group_name = each.value
  priority                    = 4096
  direction                   = "Inbound"
  access                      = "Deny"
  protocol                    = "*"
  source_address_prefix       = "*"
  source_port_range           = "*"
  destination_address_prefix  = "*"
  destination_port_range      = "*"
}

resource "azurerm_subnet_network_security_group_association" "this" {
  for_each = {
    nodes     = { subnet = azurerm_subnet.nodes.id, group = azurerm_network_security_group.nodes.id }
    postgres  = { subnet = azurerm_subnet.postgres.id, group = azurerm_network_security_group.data.id }
    endpoints = { subnet = azurerm_subnet.endpoints.id, group = azurerm_network_security_group.data.id }
  }

  subnet_id                 = each.value.subnet
  network_security_group_id = each.value.group
}

# Names of managed services resolve to their private addresses inside this network.

resource "azurerm_private_dns_zone" "this" {
  for_each = local.private_zones

  name                = each.value
  resource_group_name = var.resource_group_name
}

resource "azurerm_private_dns_zone_virtual_network_link" "this" {
  for_each = local.private_zones

  name                = var.name
  private_dns_zone_id = azurerm_private_dns_zone.this[each.key].id
  virtual_network_id  = azurerm_virtual_network.this.id
}
