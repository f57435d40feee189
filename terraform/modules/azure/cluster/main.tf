resource "azurerm_role_assignment" "network" {
  for_each = toset(["nodes", "api_server"])

  scope                = var.subnet_ids[each.key]
  role_definition_name = "Network Contributor"
  principal_id         = var.key.principal_id
  principal_type       = "ServicePrincipal"
}

resource "azurerm_role_assignment" "disks" {
  scope                = var.disk_encryption_set_id
  role_definition_name = "Reader"
  principal_id         = var.key.principal_id
  principal_type       = "ServicePrincipal"
}

resource "azurerm_kubernetes_cluster" "this" {
  #checkov:skip=CKV_AZURE_115:Private unless networks of operators are named, which the variable's rule keeps from being everybody
  #checkov:skip=CKV_AZURE_170:A variable decides: production has the service level
  #checkov:skip=CKV_AZURE_172:Secrets come by external-secrets, which asks Key Vault again every few minutes; the CSI driver is not used
  #checkov:skip=CKV_AZURE_226:An ephemeral disk cannot be encrypted by our key; these are
  #checkov:skip=CKV2_AZURE_29:Azure CNI it is, as an overlay
  name                = var.name
  location            = var.location
  resource_group_name = var.resource_group_name
  dns_prefix          = var.name
  kubernetes_version  = var.kubernetes_version
  sku_tier            = var.has_service_level ? "Standard" : "Free"

  automatic_upgrade_channel = "patch"
  node_os_upgrade_channel   = "NodeImage"

  private_cluster_enabled             = length(var.authorized_ip_ranges) == 0
  private_cluster_public_fqdn_enabled = false
  run_command_enabled                 = false
  local_account_disabled              = true
  oidc_issuer_enabled                 = true
  workload_identity_enabled           = true
  azure_policy_enabled                = true
  image_cleaner_enabled               = true
  image_cleaner_interval_hours        = 48
  disk_encryption_set_id              = var.disk_encryption_set_id

  identity {
    type         = "UserAssigned"
    identity_ids = [var.key.identity_id]
  }

  azure_active_directory_role_based_access_control {
    azure_rbac_enabled     = true
    admin_group_object_ids = var.administrator_group_ids
  }

  key_management_service {
    key_vault_key_id         = var.key.versioned_id
    key_vault_network_access = "Public"
  }

  api_server_access_profile {
    virtual_network_integration_enabled = true
    subnet_id                           = var.subnet_ids["api_server"]
    authorized_ip_ranges                = var.authorized_ip_ranges
  }

  network_profile {
    network_plugin      = "azure"
    network_plugin_mode = "overlay"
    network_data_plane  = "cilium"
    network_policy      = "cilium"
    load_balancer_sku   = "standard"
    outbound_type       = "userAssignedNATGateway"
    pod_cidr            = var.pod_cidr
    service_cidr        = var.service_cidr
    dns_service_ip      = cidrhost(var.service_cidr, 10)
  }

  default_node_pool {
    name                         = "system"
    vm_size                      = var.system_pool.vm_size
    type                         = "VirtualMachineScaleSets"
    vnet_subnet_id               = var.subnet_ids["nodes"]
    zones                        = ["1", "2", "3"]
    auto_scaling_enabled         = true
    min_count                    = var.system_pool.minimum
    max_count                    = var.system_pool.maximum
    max_pods                     = 110
    os_sku                       = "AzureLinux"
    os_disk_type                 = "Managed"
    host_encryption_enabled      = true
    node_public_ip_enabled       = false
    only_critical_addons_enabled = true
    temporary_name_for_rotation  = "systemtmp"

    upgrade_settings {
      max_surge                = "33%"
      drain_timeout_in_minutes = 30
    }
  }

  node_provisioning_profile {
    mode = "Manual" # pools and the cluster autoscaler
  }

  auto_scaler_profile {
    balance_similar_node_groups   = true
    expander                      = "least-waste"
    scale_down_unneeded           = "10m"
    skip_nodes_with_local_storage = false
  }

  workload_autoscaler_profile {
    keda_enabled                    = false # the charts bring KEDA
    vertical_pod_autoscaler_enabled = true  # and use this
  }

  maintenance_window_auto_upgrade {
    frequency   = "Weekly"
    interval    = 1
    duration    = 6
    day_of_week = "Sunday"
    start_time  = "02:00"
    utc_offset  = "+00:00"
  }

  maintenance_window_node_os {
    frequency   = "Weekly"
    interval    = 1
    duration    = 6
    day_of_week = "Saturday"
    start_time  = "02:00"
    utc_offset  = "+00:00"
  }

  oms_agent {
    log_analytics_workspace_id      = var.log_workspace_id
    msi_auth_for_monitoring_enabled = true
  }

  lifecycle {
    ignore_changes = [default_node_pool[0].node_count]
  }

  depends_on = [azurerm_role_assignment.network, azurerm_role_assignment.disks]
}

resource "azurerm_kubernetes_cluster_node_pool" "this" {
  #checkov:skip=CKV_AZURE_226:An ephemeral disk cannot be encrypted by our key; these are
  for_each = var.node_pools

  name                        = each.key
  kubernetes_cluster_id       = azurerm_kubernetes_cluster.this.id
  mode                        = "User"
  vm_size                     = each.value.vm_size
  vnet_subnet_id              = var.subnet_ids["nodes"]
  zones                       = ["1", "2", "3"]
  auto_scaling_enabled        = true
  min_count                   = each.value.minimum
  max_count                   = each.value.maximum
  max_pods                    = 110
  os_sku                      = "AzureLinux"
  os_disk_type                = "Managed"
  os_disk_size_gb             = each.value.disk_gb
  host_encryption_enabled     = true
  node_public_ip_enabled      = false
  node_labels                 = { "isa-cloud.io/pool" = each.key }
  temporary_name_for_rotation = substr("${each.key}tmp", 0, 12)

  upgrade_settings {
    max_surge                = "33%"
    drain_timeout_in_minutes = 30
  }
}

resource "azurerm_monitor_diagnostic_setting" "control_plane" {
  name                       = "control-plane"
  target_resource_id         = azurerm_kubernetes_cluster.this.id
  log_analytics_workspace_id = var.log_workspace_id

  dynamic "enabled_log" {
    for_each = ["kube-apiserver", "kube-audit-admin", "kube-controller-manager", "kube-scheduler", "cluster-autoscaler", "guard"]

    content {
      category = enabled_log.value
    }
  }
}
