output "network" {
  description = "Id of the network."
  value       = google_compute_network.this.id
}

output "nodes_subnetwork" {
  description = "Id of the subnetwork of nodes, pods and services."
  value       = google_compute_subnetwork.nodes.id
}

output "peered_network" {
  description = "Id of the network, once managed services can be placed into it."
  value       = google_service_networking_connection.managed.network
}

output "nat_addresses" {
  description = "Addresses that outgoing traffic comes from."
  value       = google_compute_address.nat[*].address
}
