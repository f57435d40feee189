output "name" {
  description = "Name of the cluster."
  value       = azurerm_kubernetes_cluster.this.name
}

output "id" {
  description = "Id of the cluster."
  value       = azurerm_kubernetes_cluster.this.id
}

output "endpoint" {
  description = "URL of the Kubernetes API."
  value       = azurerm_kubernetes_cluster.this.kube_config[0].host
  sensitive   = true
}

output "ca" {
  description = "Certificate of the Kubernetes API's authority, PEM in base64."
  value       = azurerm_kubernetes_cluster.this.kube_config[0].cluster_ca_certificate
  sensitive   = true
}

output "oidc_issuer_url" {
  description = "Who signs the tokens of the cluster's service accounts."
  value       = azurerm_kubernetes_cluster.this.oidc_issuer_url
}

output "kubelet_object_id" {
  description = "Object id of the nodes' identity."
  value       = azurerm_kubernetes_cluster.this.kubelet_identity[0].object_id
}

output "storage_class" {
  description = "Storage class of SSD volumes, which AKS brings; encrypted at rest, copied over the zones."
  value       = "managed-csi"
}
