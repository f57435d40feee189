variable "name" {
  description = "Name of the environment; every resource begins with it."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{2,11}$", var.name))
    error_message = "The name must be 3 to 12 lower-case letters, digits and dashes, as in isa-dev: a key vault's name has 24."
  }
}

variable "location" {
  description = "Region of the environment, such as westeurope."
  type        = string
}

variable "resource_group_name" {
  description = "Resource group of the environment."
  type        = string
}

variable "resource_group_id" {
  description = "Id of the resource group."
  type        = string
}

variable "oidc_issuer_url" {
  description = "Who signs the tokens of the cluster's service accounts."
  type        = string
}

variable "services" {
  description = "The services, which are also their service accounts in isa-cloud."
  type        = set(string)

  validation {
    condition     = length(var.services) <= 19
    error_message = "An identity trusts 20 service accounts at most: the services and the job that makes topics."
  }
}

variable "vault_id" {
  description = "Key Vault that external-secrets reads."
  type        = string
}

variable "dns_zone_id" {
  description = "Zone in which cert-manager and external-dns write."
  type        = string
}

variable "container_ids" {
  description = "Containers of Loki and of the backup jobs: loki and backup."
  type        = map(string)
}

