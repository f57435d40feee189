# One private network: no machine has an address of its own outside. In comes what a load balancer forwards, out goes
# what the NAT translates. GCP has no public subnets; a load balancer's addresses belong to no subnet.

resource "google_compute_network" "this" {
  name                            = var.name
  auto_create_subnetworks         = false
  routing_mode                    = "REGIONAL"
  delete_default_routes_on_create = false
}

resource "google_compute_subnetwork" "nodes" {
  name                     = "${var.name}-nodes"
  network                  = google_compute_network.this.id
  region                   = var.region
  ip_cidr_range            = var.cidrs.nodes
  private_ip_google_access = true # Google's APIs without the NAT

  secondary_ip_range {
    range_name    = "pods"
    ip_cidr_range = var.cidrs.pods
  }

  secondary_ip_range {
    range_name    = "services"
    ip_cidr_range = var.cidrs.services
  }

  log_config {
    aggregation_interval = "INTERVAL_5_SEC"
    flow_sampling        = 0.5
    metadata             = "INCLUDE_ALL_METADATA"
  }
}

resource "google_compute_address" "nat" {
  count = var.nat_addresses

  name   = "${var.name}-nat-${count.index}"
  region = var.region
}

resource "google_compute_router" "this" {
  name    = var.name
  network = google_compute_network.this.id
  region  = var.region
}

resource "google_compute_router_nat" "this" {
  name                               = var.name
  router                             = google_compute_router.this.name
  region                             = var.region
  nat_ip_allocate_option             = "MANUAL_ONLY"
  nat_ips                            = google_compute_address.nat[*].self_link
  source_subnetwork_ip_ranges_to_nat = "LIST_OF_SUBNETWORKS"

  subnetwork {
    name                    = google_compute_subnetwork.nodes.id
    source_ip_ranges_to_nat = ["ALL_IP_RANGES"]
  }

  log_config {
    enable = true
    filter = "ERRORS_ONLY"
  }
}

# The network denies what comes in unless a rule allows it; GKE adds its own rules for node to node and for kubelets.
resource "google_compute_firewall" "webhooks" {
  name          = "${var.name}-webhooks"
  description   = "Admission webhooks and aggregated APIs: GKE opens only 443 and 10250 to its control plane by itself."
  network       = google_compute_network.this.id
  direction     = "INGRESS"
  source_ranges = [var.cidrs.control_plane]

  allow {
    protocol = "tcp"
    # Dapr's injector 4000, KEDA's metrics 6443, Strimzi and others 8443, KEDA's and Rollouts' webhooks 9443, cert-manager 10250
    ports = ["4000", "6443", "8443", "9443", "10250", "10260"]
  }

  log_config {
    metadata = "INCLUDE_ALL_METADATA"
  }
}

resource "google_compute_firewall" "health_checks" {
  name          = "${var.name}-health-checks"
  description   = "Google's load balancers ask whether the gateway is well, and forward from the same ranges."
  network       = google_compute_network.this.id
  direction     = "INGRESS"
  source_ranges = ["35.191.0.0/16", "130.211.0.0/22"]

  allow {
    protocol = "tcp"
    ports    = ["80", "443", "8080", "8443", "10256"]
  }

  log_config {
    metadata = "INCLUDE_ALL_METADATA"
  }
}

resource "google_compute_firewall" "deny" {
  name          = "${var.name}-deny"
  description   = "What no rule allows is denied anyway; this one writes it down."
  network       = google_compute_network.this.id
  direction     = "INGRESS"
  priority      = 65534
  source_ranges = ["0.0.0.0/0"]

  deny {
    protocol = "all"
  }

  log_config {
    metadata = "EXCLUDE_ALL_METADATA"
  }
}

# Cloud SQL and Memorystore live in Google's network and are reached by a peering: no address of theirs is public.
resource "google_compute_global_address" "managed" {
  name          = "${var.name}-managed"
  network       = google_compute_network.this.id
  purpose       = "VPC_PEERING"
  address_type  = "INTERNAL"
  address       = cidrhost(var.cidrs.managed, 0)
  prefix_length = tonumber(split("/", var.cidrs.managed)[1])
}

resource "google_service_networking_connection" "managed" {
  network                 = google_compute_network.this.id
  service                 = "servicenetworking.googleapis.com"
  reserved_peering_ranges = [google_compute_global_address.managed.name]
}

resource "google_dns_policy" "logging" {
  name           = var.name
  enable_logging = true

  networks {
    network_url = google_compute_network.this.id
  }
}
