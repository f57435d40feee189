variable "name" {
  description = "Name of the environment; every resource begins with it."
  type        = string
}

variable "engine_version" {
  description = "PostgreSQL's version: a major one, whose newest minor RDS takes."
  type        = string
  default     = "18"

  validation {
    condition     = can(regex("^1[78]([.][0-9]+)?$", var.engine_version))
    error_message = "The version must be PostgreSQL 17 or 18: the migrations are tested with those."
  }
}

variable "instance_class" {
  description = "Size of the instance."
  type        = string

  validation {
    condition     = can(regex("^db[.]", var.instance_class)) && !can(regex("[.](micro|small)$", var.instance_class))
    error_message = "The class must be as db.t4g.medium or larger: smaller ones have no performance insights and too little memory for the pools."
  }
}

variable "multi_az" {
  description = "A standby in another zone, which takes over within a minute or two."
  type        = bool
}

variable "storage_gib" {
  description = "Disk at first."
  type        = number

  validation {
    condition     = var.storage_gib >= 20
    error_message = "gp3 begins at 20 GiB."
  }
}

variable "max_storage_gib" {
  description = "Up to here the disk grows by itself."
  type        = number

  validation {
    condition     = var.max_storage_gib >= var.storage_gib * 1.26
    error_message = "The limit must be at least 26 % above storage_gib: RDS refuses to grow by less."
  }
}

variable "backup_days" {
  description = "How far back a point in time can be restored."
  type        = number

  validation {
    condition     = var.backup_days >= 1 && var.backup_days <= 35
    error_message = "RDS keeps 1 to 35 days; 0 would switch backups off."
  }
}

variable "is_protected" {
  description = "Refuse deletion, take a last snapshot, keep the backups of a deleted instance."
  type        = bool
}

variable "log_retention_days" {
  description = "How long PostgreSQL's log is kept in CloudWatch."
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
  description = "Key that encrypts disk, backups, insights and the administrator's password."
  type        = string
}

variable "logs_key_arn" {
  description = "Key that encrypts the log groups."
  type        = string
}
