variable "name" {
  description = "Name of the environment; every resource begins with it."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{2,13}$", var.name))
    error_message = "The name must be 3 to 14 lower-case letters, digits and dashes, as in isa-dev: a service account's id has 30."
  }
}

variable "region" {
  description = "Region of the environment, such as europe-west1."
  type        = string
}

variable "network" {
  description = "Id of the network."
  type        = string
}

variable "subnetwork" {
  description = "Id of the subnetwork with the ranges `pods` and `services`."
  type        = string
}

variable "control_plane_cidr" {
  description = "The /28 of the control plane."
  type        = string
}

variable "authorized_networks" {
  description = "Who may reach the Kubernetes API by its address, name to block; none leaves only the private one."
  type        = map(string)

  validation {
    condition     = !contains(values(var.authorized_networks), "0.0.0.0/0")
    error_message = "The Kubernetes API is not for everybody: name the networks that operators come from."
  }
}

variable "kubernetes_version" {
  description = "Lowest version of the control plane; the release channel moves it on within what it supports."
  type        = string
  default     = "1.34"
  validation {
    condition     = can(regex("^1\\.3[4-9]$", var.kubernetes_version))
    error_message = "Kubernetes 1.34 or newer: the charts are checked against 1.34."
  }
}

variable "release_channel" {
  description = "How early new versions come: RAPID, REGULAR or STABLE."
  type        = string

  validation {
    condition     = contains(["RAPID", "REGULAR", "STABLE"], var.release_channel)
    error_message = "The release channel is RAPID, REGULAR or STABLE."
  }
}

variable "node_pools" {
  description = "Node pools by name; counts are totals over all zones."
  type = map(object({
    machine_type = string
    minimum      = number
    maximum      = number
    disk_gb      = number
    spot         = bool
  }))
  validation {
    condition     = alltrue([for pool in var.node_pools : pool.minimum >= 1 && pool.maximum >= pool.minimum])
    error_message = "A pool has at least one node, and its maximum is not below its minimum."
  }
}

variable "cluster_key" {
  description = "Key that encrypts Kubernetes' Secrets in its database."
  type        = string
}

variable "disk_key" {
  description = "Key that encrypts the nodes' disks."
  type        = string
}

variable "deletion_protection" {
  description = "Whether Terraform refuses to delete the cluster."
  type        = bool
}
