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
  value       = nonsensitive(azurerm_kubernetes_cluster.this.kube_config[0].host)
}

output "ca" {
  description = "Certificate of the Kubernetes API's authority, PEM in base64."
  value       = nonsensitive(azurerm_kubernetes_cluster.this.kube_config[0].cluster_ca_certificate)
}

output "oidc_issuer_url" {
  description = "Who signs the tokens of the cluster's service accounts."
  value       = azurerm_kubernetes_cluster.this.oidc_issuer_url
}

output "storage_class" {
  description = "Storage class of SSD volumes, which AKS brings; encrypted at rest, copied over the zones."
  value       = "managed-csi"
}
