output "name" {
  description = "Name of the cluster."
  value       = google_container_cluster.this.name
}

output "id" {
  description = "Full id of the cluster."
  value       = google_container_cluster.this.id
}

output "endpoint" {
  description = "URL of the Kubernetes API."
  value       = "https://${google_container_cluster.this.endpoint}"
}

output "ca" {
  description = "Certificate of the Kubernetes API's authority, PEM in base64."
  value       = google_container_cluster.this.master_auth[0].cluster_ca_certificate
}

output "workload_pool" {
  description = "Workload identity pool of the cluster's service accounts."
  value       = google_container_cluster.this.workload_identity_config[0].workload_pool
}

output "storage_class" {
  description = "Storage class of SSD volumes, which GKE brings: balanced disks, encrypted at rest by Google's keys."
  value       = "standard-rwo"
}
