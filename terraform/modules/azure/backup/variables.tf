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


variable "has_copies" {
  description = "Copies in the paired region, from which can be restored there."
  type        = bool
}

variable "is_protected" {
  description = "Nobody can delete a backup before its time."
  type        = bool
}

variable "cluster_id" {
  description = "Id of the cluster."
  type        = string
}

variable "cluster_principal_id" {
  description = "Object id of the cluster's identity, which takes the snapshots."
  type        = string
}

variable "server_id" {
  description = "Id of the PostgreSQL server."
  type        = string
}

variable "namespaces" {
  description = "Namespaces whose volumes and resources are kept; the rest comes back from git."
  type        = list(string)
  default     = ["isa-data", "isa-cloud", "argocd", "dapr-system"]
}

variable "storage" {
  description = "Account and container that the cluster's agent writes to: id and name of the account, name of the container."
  type        = object({ account_id = string, account_name = string, container = string })
}

variable "snapshot_days" {
  description = "How long snapshots of volumes are kept; each costs what has changed since."
  type        = number
}

variable "key" {
  description = "Key that encrypts the vault: as services call it, and as rights are given to it."
  type        = object({ id = string, resource_id = string })
}

variable "tenant_id" {
  description = "Entra tenant."
  type        = string
}

variable "subscription_id" {
  description = "Subscription."
  type        = string
}

