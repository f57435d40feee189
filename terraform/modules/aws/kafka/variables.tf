variable "name" {
  description = "Name of the environment; every resource begins with it."
  type        = string
}

variable "kafka_version" {
  description = "MSK's name of the version; the suffix chooses KRaft."
  type        = string
  default     = "4.1.x.kraft"

  validation {
    condition     = can(regex("^(3[.]9|4[.][0-9]+)[.]x[.]kraft$", var.kafka_version))
    error_message = "The version must be 3.9.x.kraft or newer, as 4.1.x.kraft: ZooKeeper's mode cannot be left later."
  }
}

variable "instance_type" {
  description = "Size of a broker."
  type        = string

  validation {
    condition     = can(regex("^kafka[.](m5|m7g)[.]", var.instance_type))
    error_message = "The type must be of the families kafka.m5 or kafka.m7g: KRaft does not run on kafka.t3."
  }
}

variable "volume_gib" {
  description = "Disk of a broker at first."
  type        = number
}

variable "max_volume_gib" {
  description = "Up to here a broker's disk grows by itself."
  type        = number

  validation {
    condition     = var.max_volume_gib > var.volume_gib && var.max_volume_gib <= 16384
    error_message = "The limit must be above volume_gib, and at most 16384."
  }
}

variable "log_retention_days" {
  description = "How long brokers' logs are kept."
  type        = number
}

variable "vpc_id" {
  description = "The VPC."
  type        = string
}

variable "subnet_ids" {
  description = "Database subnets; a broker in each."
  type        = list(string)

  validation {
    condition     = length(var.subnet_ids) == 3
    error_message = "Three subnets in three zones: each partition has three copies and a zone may be lost."
  }
}

variable "cluster_security_group_id" {
  description = "Who may connect."
  type        = string
}

variable "data_key_arn" {
  description = "Key that encrypts the brokers' disks."
  type        = string
}

variable "logs_key_arn" {
  description = "Key that encrypts the brokers' logs."
  type        = string
}
