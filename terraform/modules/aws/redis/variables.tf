variable "name" {
  description = "Name of the environment; every resource begins with it."
  type        = string
}

variable "node_type" {
  description = "Size of a node."
  type        = string

  validation {
    condition     = can(regex("^cache[.]", var.node_type))
    error_message = "The type must be as cache.t4g.small."
  }
}

variable "nodes" {
  description = "The primary and its replicas, each in a zone of its own."
  type        = number

  validation {
    condition     = var.nodes >= 1 && var.nodes <= 3
    error_message = "One to three nodes: there are three zones."
  }
}

variable "snapshot_days" {
  description = "How many daily snapshots are kept."
  type        = number

  validation {
    condition     = var.snapshot_days >= 1 && var.snapshot_days <= 35
    error_message = "ElastiCache keeps 1 to 35 daily snapshots; 0 would switch them off."
  }
}

variable "is_protected" {
  description = "Take a last snapshot before deletion."
  type        = bool
}

variable "log_retention_days" {
  description = "How long the slow log and the engine's log are kept."
  type        = number
}

variable "vpc_id" {
  description = "The VPC."
  type        = string
}

variable "subnet_ids" {
  description = "Database subnets."
  type        = list(string)
}

variable "cluster_security_group_id" {
  description = "Who may connect."
  type        = string
}

variable "data_key_arn" {
  description = "Key that encrypts disk and snapshots."
  type        = string
}

variable "logs_key_arn" {
  description = "Key that encrypts the log groups."
  type        = string
}
