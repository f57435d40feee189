variable "name" {
  description = "Name of the environment; every resource begins with it."
  type        = string
}

variable "kubernetes_version" {
  description = "Version of Kubernetes; the charts are checked against 1.34."
  type        = string
  default     = "1.34"

  validation {
    condition     = can(regex("^1[.](3[4-9]|[4-9][0-9])$", var.kubernetes_version))
    error_message = "The version must be 1.34 or newer: older ones leave EKS's standard support."
  }
}

variable "private_subnet_ids" {
  description = "Subnets of the control plane's interfaces and of the nodes."
  type        = list(string)

  validation {
    condition     = length(var.private_subnet_ids) >= 2
    error_message = "EKS needs subnets in at least two zones."
  }
}

variable "public_access_cidrs" {
  description = "Who reaches the Kubernetes API from outside; empty for nobody."
  type        = list(string)

  validation {
    condition     = alltrue([for cidr in var.public_access_cidrs : can(cidrhost(cidr, 0)) && tonumber(split("/", cidr)[1]) >= 16])
    error_message = "Name the networks that may reach the Kubernetes API, /16 or smaller; the whole internet is none of them."
  }
}

variable "administrators" {
  description = "IAM roles that administer the cluster, by a name of your own."
  type        = map(string)

  validation {
    condition     = length(var.administrators) > 0
    error_message = "Name at least one administrator: whoever runs Terraform is not one by that, so nobody could enter the cluster."
  }

  validation {
    condition     = alltrue([for arn in values(var.administrators) : can(regex("^arn:[^:]+:iam::[0-9]{12}:role/", arn))])
    error_message = "An administrator is the ARN of an IAM role, arn:aws:iam::<account>:role/<name>: roles expire, users' keys do not."
  }
}

variable "node_groups" {
  description = "Groups of nodes by name; the cluster autoscaler moves between min and max."
  type = map(object({
    instance_types = list(string)
    min            = number
    max            = number
    spot           = optional(bool, false)
    disk_gib       = optional(number, 80)
  }))

  validation {
    condition     = contains(keys(var.node_groups), "system") && !try(var.node_groups["system"].spot, true)
    error_message = "There must be a group `system` and it must not be spot: the operators run there."
  }

  validation {
    condition     = alltrue([for group in values(var.node_groups) : group.min >= 1 && group.max >= group.min])
    error_message = "Each group needs min >= 1 and max >= min."
  }
}

variable "node_tags" {
  description = "Tags of instances and disks, which cost reports read."
  type        = map(string)
  default     = {}
}

variable "addon_versions" {
  description = "Versions of add-ons that are pinned; the others get what EKS recommends."
  type        = map(string)
  default     = {}
}

variable "log_retention_days" {
  description = "How long the control plane's logs, its audit log among them, are kept."
  type        = number
}

variable "cluster_key_arn" {
  description = "Key that encrypts Kubernetes secrets."
  type        = string
}

variable "logs_key_arn" {
  description = "Key that encrypts the control plane's logs."
  type        = string
}
