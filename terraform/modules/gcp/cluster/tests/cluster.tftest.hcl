mock_provider "google" {
  source = "../../../tests/mocks/gcp"
}

variables {
  name                = "isa-prod"
  region              = "europe-west3"
  network             = "projects/example-isa/global/networks/isa-prod"
  subnetwork          = "projects/example-isa/regions/europe-west3/subnetworks/isa-prod-nodes"
  control_plane_cidr  = "10.80.16.0/28"
  authorized_networks = {}
  release_channel     = "STABLE"
  cluster_key         = "projects/example-isa/locations/europe-west3/keyRings/isa-prod/cryptoKeys/cluster"
  disk_key            = "projects/example-isa/locations/europe-west3/keyRings/isa-prod/cryptoKeys/disks"
  deletion_protection = true
  node_pools = {
    work = { machine_type = "n2d-standard-4", minimum = 3, maximum = 20, disk_gb = 120, spot = false }
  }
}

run "nodes_have_no_public_address" {
  command = plan

  assert {
    condition     = google_container_cluster.this.private_cluster_config[0].enable_private_nodes && google_container_node_pool.this["work"].network_config[0].enable_private_nodes
    error_message = "Nodes must be private."
  }
}

run "without_authorised_networks_the_api_is_private" {
  command = plan

  assert {
    condition     = google_container_cluster.this.private_cluster_config[0].enable_private_endpoint && length(google_container_cluster.this.master_authorized_networks_config[0].cidr_blocks) == 0
    error_message = "When nobody is named, nobody outside may reach the API by its address."
  }
}

run "authorised_networks_are_the_only_ones" {
  command = plan

  variables {
    authorized_networks = { office = "198.51.100.0/24" }
  }

  assert {
    condition     = !google_container_cluster.this.private_cluster_config[0].enable_private_endpoint && one(google_container_cluster.this.master_authorized_networks_config[0].cidr_blocks[*].cidr_block) == "198.51.100.0/24"
    error_message = "Exactly the networks named may reach the API."
  }
}

run "secrets_and_disks_are_encrypted_with_our_keys" {
  command = plan

  assert {
    condition     = google_container_cluster.this.database_encryption[0].state == "ENCRYPTED" && google_container_cluster.this.database_encryption[0].key_name == var.cluster_key && google_container_node_pool.this["work"].node_config[0].boot_disk_kms_key == var.disk_key
    error_message = "Kubernetes' Secrets and the nodes' disks need our keys."
  }
}

run "policies_are_enforced" {
  command = plan

  assert {
    condition     = google_container_cluster.this.datapath_provider == "ADVANCED_DATAPATH"
    error_message = "Without Dataplane V2 no NetworkPolicy of the charts has an effect."
  }
}

run "a_pod_is_not_its_node" {
  command = plan

  assert {
    condition     = google_container_cluster.this.workload_identity_config[0].workload_pool == "example-isa.svc.id.goog" && google_container_node_pool.this["work"].node_config[0].workload_metadata_config[0].mode == "GKE_METADATA"
    error_message = "Pods must have their own identity and not see their node's."
  }
}

run "nodes_start_what_was_signed" {
  command = plan

  assert {
    condition     = google_container_node_pool.this["work"].node_config[0].shielded_instance_config[0].enable_secure_boot && google_container_cluster.this.enable_shielded_nodes && google_container_cluster.this.binary_authorization[0].evaluation_mode == "PROJECT_SINGLETON_POLICY_ENFORCE"
    error_message = "Shielded nodes and the project's image policy must be on."
  }
}

run "pools_scale_and_heal" {
  command = plan

  assert {
    condition     = google_container_node_pool.this["work"].autoscaling[0].total_max_node_count == 20 && google_container_node_pool.this["work"].management[0].auto_repair && google_container_node_pool.this["work"].upgrade_settings[0].max_unavailable == 0
    error_message = "A pool scales up to its maximum, is repaired, and is upgraded without going below its size."
  }
}

run "production_is_not_deleted_by_mistake" {
  command = plan

  assert {
    condition     = google_container_cluster.this.deletion_protection
    error_message = "The cluster must be protected."
  }
}

run "everybody_is_refused" {
  command = plan

  variables {
    authorized_networks = { all = "0.0.0.0/0" }
  }

  expect_failures = [var.authorized_networks]
}

run "an_old_kubernetes_is_refused" {
  command = plan

  variables {
    kubernetes_version = "1.28"
  }

  expect_failures = [var.kubernetes_version]
}

run "no_channel_is_refused" {
  command = plan

  variables {
    release_channel = "UNSPECIFIED"
  }

  expect_failures = [var.release_channel]
}

run "an_empty_pool_is_refused" {
  command = plan

  variables {
    node_pools = { work = { machine_type = "n2d-standard-4", minimum = 0, maximum = 3, disk_gb = 80, spot = false } }
  }

  expect_failures = [var.node_pools]
}
