variable "name" {
  description = "Name of the environment; every resource begins with it."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{2,13}$", var.name))
    error_message = "The name must be 3 to 14 lower-case letters, digits and dashes, as in isa-dev: a service account's id has 30."
  }
}

variable "workload_pool" {
  description = "Workload identity pool of the cluster's service accounts."
  type        = string
}

variable "services" {
  description = "The services, which are also their service accounts in isa-cloud."
  type        = set(string)
}

variable "secret_prefix" {
  description = "external-secrets may read the entries that begin so, and no others."
  type        = string
}

variable "dns_zone" {
  description = "Managed zone in which cert-manager and external-dns write."
  type        = string
}

variable "loki_bucket" {
  description = "Bucket of Loki."
  type        = string
}

variable "backup_bucket" {
  description = "Bucket of the backup jobs."
  type        = string
}
