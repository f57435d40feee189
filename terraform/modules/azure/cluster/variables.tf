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

variable "subnet_ids" {
  description = "Subnets by name: nodes and api_server."
  type        = map(string)
}

variable "pod_cidr" {
  description = "Addresses of pods, which only the cluster knows (overlay)."
  type        = string

  validation {
    condition     = can(cidrhost(var.pod_cidr, 0))
    error_message = "An IPv4 block such as 10.244.0.0/16."
  }
}

variable "service_cidr" {
  description = "Addresses of Services, which only the cluster knows."
  type        = string

  validation {
    condition     = can(cidrhost(var.service_cidr, 0))
    error_message = "An IPv4 block such as 10.96.0.0/16."
  }
}

variable "authorized_ip_ranges" {
  description = "Who may reach the Kubernetes API; none makes it private."
  type        = set(string)

  validation {
    condition     = !contains(var.authorized_ip_ranges, "0.0.0.0/0")
    error_message = "The Kubernetes API is not for everybody: name the networks that operators come from."
  }
}

variable "administrator_group_ids" {
  description = "Entra groups whose members administer the cluster."
  type        = list(string)

  validation {
    condition     = length(var.administrator_group_ids) > 0
    error_message = "At least one group: there are no local accounts."
  }
}

variable "kubernetes_version" {
  description = "Version of Kubernetes; patches come by themselves."
  type        = string
  default     = "1.34"

  validation {
    condition     = can(regex("^1\\.3[4-9]$", var.kubernetes_version))
    error_message = "Kubernetes 1.34 or newer: the charts are checked against 1.34."
  }
}

variable "system_pool" {
  description = "The pool of what the cluster itself runs."
  type        = object({ vm_size = string, minimum = number, maximum = number })
}

variable "node_pools" {
  description = "Pools of everything else, by name."
  type = map(object({
    vm_size = string
    minimum = number
    maximum = number
    disk_gb = number
  }))

  validation {
    condition     = alltrue([for name, pool in var.node_pools : can(regex("^[a-z][a-z0-9]{0,11}$", name)) && pool.maximum >= pool.minimum])
    error_message = "A pool's name has 1 to 12 lower-case letters and digits, and its maximum is not below its minimum."
  }
}

variable "disk_encryption_set_id" {
  description = "What encrypts the nodes' disks."
  type        = string
}

variable "key" {
  description = "Key that encrypts Kubernetes' Secrets in its database, and the identity that may use it, which becomes the cluster's."
  type        = object({ versioned_id = string, identity_id = string, principal_id = string })
}

variable "log_workspace_id" {
  description = "Log Analytics workspace."
  type        = string
}

variable "has_service_level" {
  description = "A control plane with a service level: 99.95 % with zones."
  type        = bool
}

