mock_provider "google" {
  source = "../../../tests/mocks/gcp"
}

variables {
  name          = "isa-prod"
  region        = "europe-west3"
  nat_addresses = 2
  cidrs = {
    nodes         = "10.80.0.0/20"
    pods          = "10.80.64.0/18"
    services      = "10.80.32.0/20"
    control_plane = "10.80.16.0/28"
    managed       = "10.80.48.0/20"
  }
}

run "nothing_comes_in_but_health_checks_and_webhooks" {
  command = plan

  assert {
    condition     = toset(google_compute_firewall.webhooks.source_ranges) == toset(["10.80.16.0/28"]) && toset(google_compute_firewall.health_checks.source_ranges) == toset(["35.191.0.0/16", "130.211.0.0/22"]) && length(google_compute_firewall.deny.deny) == 1
    error_message = "Only the control plane and Google's load balancers may come in."
  }
}

run "dapr_injects_because_the_control_plane_reaches_its_webhook" {
  command = plan

  assert {
    condition     = contains(tolist(google_compute_firewall.webhooks.allow)[0].ports, "4000")
    error_message = "Port 4000 is the injector's: without it pods start without a sidecar, or not at all."
  }
}

run "flows_and_names_are_written_down" {
  command = plan

  assert {
    condition     = google_compute_subnetwork.nodes.log_config[0].metadata == "INCLUDE_ALL_METADATA" && google_dns_policy.logging.enable_logging
    error_message = "Flow logs and DNS logs must be on."
  }
}

run "what_goes_out_comes_from_fixed_addresses" {
  command = plan

  assert {
    condition     = google_compute_router_nat.this.nat_ip_allocate_option == "MANUAL_ONLY" && length(google_compute_address.nat) == 2
    error_message = "Partners allow-list our addresses: they must not change."
  }
}

run "managed_services_have_private_addresses" {
  command = plan

  assert {
    condition     = google_compute_global_address.managed.address_type == "INTERNAL" && google_compute_global_address.managed.address == "10.80.48.0" && google_compute_global_address.managed.prefix_length == 20
    error_message = "Cloud SQL and Memorystore must get addresses of the range `managed`."
  }
}

run "a_larger_control_plane_is_refused" {
  command = plan

  variables {
    cidrs = {
      nodes         = "10.80.0.0/20"
      pods          = "10.80.64.0/18"
      services      = "10.80.32.0/20"
      control_plane = "10.80.16.0/24"
      managed       = "10.80.48.0/20"
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
