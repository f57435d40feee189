mock_provider "azurerm" {
  source = "../../../tests/mocks/azure"
}

variables {
  name                = "isa-prod"
  location            = "westeurope"
  resource_group_name = "isa-prod"
  subnet_ids = {
    nodes      = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/isa-prod/providers/Microsoft.Network/virtualNetworks/isa-prod/subnets/nodes"
    api_server = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/isa-prod/providers/Microsoft.Network/virtualNetworks/isa-prod/subnets/api-server"
  }
  pod_cidr                = "10.194.0.0/16"
  service_cidr            = "10.200.0.0/16"
  authorized_ip_ranges    = []
  administrator_group_ids = ["11111111-1111-1111-1111-111111111111"]
  system_pool             = { vm_size = "Standard_D4as_v5", minimum = 3, maximum = 6 }
  node_pools              = { work = { vm_size = "Standard_D4as_v5", minimum = 3, maximum = 20, disk_gb = 128 } }
  disk_encryption_set_id  = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/isa-prod/providers/Microsoft.Compute/diskEncryptionSets/isa-prod"
  key                     = { versioned_id = "https://isa-prod-clus-a1b2c3.vault.azure.net/keys/cluster/0123456789abcdef0123456789abcdef", identity_id = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/isa-prod/providers/Microsoft.ManagedIdentity/userAssignedIdentities/isa-prod-cluster", principal_id = "33333333-3333-3333-3333-333333333333" }
  log_workspace_id        = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/isa-prod/providers/Microsoft.OperationalInsights/workspaces/isa-prod"
  has_service_level       = true
}

run "without_authorised_ranges_the_api_is_private" {
  command = plan

  assert {
    condition     = azurerm_kubernetes_cluster.this.private_cluster_enabled && azurerm_kubernetes_cluster.this.api_server_access_profile[0].virtual_network_integration_enabled
    error_message = "When nobody is named, the API must have no public address."
  }
}

run "authorised_ranges_are_the_only_ones" {
  command = plan

  variables {
    authorized_ip_ranges = ["198.51.100.0/24"]
  }

  assert {
    condition     = !azurerm_kubernetes_cluster.this.private_cluster_enabled && toset(azurerm_kubernetes_cluster.this.api_server_access_profile[0].authorized_ip_ranges) == toset(["198.51.100.0/24"])
    error_message = "Exactly the networks named may reach the API."
  }
}

run "people_are_entras_and_have_no_back_door" {
  command = plan

  assert {
    condition     = azurerm_kubernetes_cluster.this.local_account_disabled && azurerm_kubernetes_cluster.this.azure_active_directory_role_based_access_control[0].azure_rbac_enabled && !azurerm_kubernetes_cluster.this.run_command_enabled
    error_message = "Only Entra's people, by Azure's RBAC."
  }
}

run "secrets_and_disks_are_encrypted_with_our_keys" {
  command = plan

  assert {
    condition     = azurerm_kubernetes_cluster.this.key_management_service[0].key_vault_key_id == var.key.versioned_id && azurerm_kubernetes_cluster.this.disk_encryption_set_id == var.disk_encryption_set_id && azurerm_kubernetes_cluster.this.default_node_pool[0].host_encryption_enabled && azurerm_kubernetes_cluster_node_pool.this["work"].host_encryption_enabled
    error_message = "Kubernetes' Secrets and the nodes' disks need our keys."
  }
}

run "policies_are_enforced" {
  command = plan

  assert {
    condition     = azurerm_kubernetes_cluster.this.network_profile[0].network_data_plane == "cilium" && azurerm_kubernetes_cluster.this.network_profile[0].network_policy == "cilium" && azurerm_kubernetes_cluster.this.network_profile[0].network_plugin_mode == "overlay"
    error_message = "Without Cilium no NetworkPolicy of the charts has an effect."
  }
}

run "pods_have_identities_of_their_own" {
  command = plan

  assert {
    condition     = azurerm_kubernetes_cluster.this.oidc_issuer_enabled && azurerm_kubernetes_cluster.this.workload_identity_enabled
    error_message = "Workload identity must be on: the charts annotate service accounts."
  }
}

run "patches_come_by_themselves_at_night" {
  command = plan

  assert {
    condition     = azurerm_kubernetes_cluster.this.automatic_upgrade_channel == "patch" && azurerm_kubernetes_cluster.this.node_os_upgrade_channel == "NodeImage" && azurerm_kubernetes_cluster.this.maintenance_window_auto_upgrade[0].day_of_week == "Sunday"
    error_message = "Patches of Kubernetes and of nodes must come within the windows."
  }
}

run "pools_scale_over_three_zones" {
  command = plan

  assert {
    condition     = azurerm_kubernetes_cluster_node_pool.this["work"].auto_scaling_enabled && azurerm_kubernetes_cluster_node_pool.this["work"].max_count == 20 && length(azurerm_kubernetes_cluster_node_pool.this["work"].zones) == 3 && azurerm_kubernetes_cluster.this.default_node_pool[0].only_critical_addons_enabled
    error_message = "A pool must scale up to its maximum, in three zones; the system's is for the system."
  }
}

run "what_the_control_plane_did_is_written_down" {
  command = plan

  assert {
    condition     = contains([for log in azurerm_monitor_diagnostic_setting.control_plane.enabled_log : log.category], "kube-audit-admin")
    error_message = "The audit log must be kept."
  }
}

run "everybody_is_refused" {
  command = plan

  variables {
    authorized_ip_ranges = ["0.0.0.0/0"]
  }

  expect_failures = [var.authorized_ip_ranges]
}

run "no_administrators_are_refused" {
  command = plan

  variables {
    administrator_group_ids = []
  }

  expect_failures = [var.administrator_group_ids]
}

run "an_old_kubernetes_is_refused" {
  command = plan

  variables {
    kubernetes_version = "1.28"
  }

  expect_failures = [var.kubernetes_version]
}

run "a_pod_range_that_is_none_is_refused" {
  command = plan

  variables {
    pod_cidr = "pods"
  }

  expect_failures = [var.pod_cidr]
}

run "a_service_range_that_is_none_is_refused" {
  command = plan

  variables {
    service_cidr = "services"
  }

  expect_failures = [var.service_cidr]
}

run "a_pool_with_dashes_is_refused" {
  command = plan

  variables {
    node_pools = { work-horses = { vm_size = "Standard_D4as_v5", minimum = 3, maximum = 20, disk_gb = 128 } }
  }

  expect_failures = [var.node_pools]
}
