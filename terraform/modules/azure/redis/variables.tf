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

variable "unique" {
  description = "Six characters that make world-wide names our own."
  type        = string
}

variable "subnet_id" {
  description = "Subnet of private endpoints."
  type        = string
}

variable "private_zone_id" {
  description = "Private zone of Managed Redis."
  type        = string
}

variable "sku_name" {
  description = "Size: Balanced_B1 has 1 GB, Balanced_B5 6 GB."
  type        = string

  validation {
    condition     = can(regex("^(Balanced_B|MemoryOptimized_M|ComputeOptimized_X)[0-9]+$", var.sku_name))
    error_message = "A name such as Balanced_B3."
  }
}

variable "high_availability" {
  description = "A second copy in another zone that takes over by itself."
  type        = bool
}

variable "key" {
  description = "Key that encrypts what is stored, and the identity that may use it. Redis takes one version: apply again after a rotation."
  type        = object({ versioned_id = string, identity_id = string })
}

variable "log_workspace_id" {
  description = "Log Analytics workspace."
  type        = string
}

