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

variable "subnet_id" {
  description = "Subnet of PostgreSQL, delegated to it."
  type        = string
}

variable "private_zone_id" {
  description = "Private zone in which its name is."
  type        = string
}

variable "engine_version" {
  description = "PostgreSQL's version. The databases use the locale provider builtin, which came with 17."
  type        = string
  default     = "18"

  validation {
    condition     = contains(["17", "18"], var.engine_version)
    error_message = "The version is 17 or 18."
  }
}

variable "sku_name" {
  description = "Machine: B_ burstable, GP_ general, MO_ much memory."
  type        = string

  validation {
    condition     = can(regex("^(B|GP|MO)_Standard_", var.sku_name))
    error_message = "A name such as GP_Standard_D2ds_v5."
  }
}

variable "storage_mb" {
  description = "Size of the disk on the first day; it grows by itself."
  type        = number

  validation {
    condition     = contains([32768, 65536, 131072, 262144, 524288, 1048576, 2097152, 4193280, 8388608, 16777216], var.storage_mb)
    error_message = "A power of two from 32768 on, as Azure sells it."
  }
}

variable "high_availability" {
  description = "A standby in a second zone that takes over by itself."
  type        = bool

  validation {
    condition     = var.high_availability ? !startswith(var.sku_name, "B_") : true
    error_message = "A burstable machine has no standby: choose GP_ or MO_."
  }
}

variable "backup_days" {
  description = "How many days back a point in time can be restored."
  type        = number

  validation {
    condition     = var.backup_days >= 7 && var.backup_days <= 35
    error_message = "Between 7 and 35 days, the longest that Azure restores from."
  }
}

variable "admin_user" {
  description = "The administrator that makes databases and roles; a member of azure_pg_admin."
  type        = string
}

variable "admin_password" {
  description = "Its password: handed to Azure and never kept in the state."
  type        = string
  sensitive   = true
  ephemeral   = true
}

variable "admin_password_version" {
  description = "Raised by one to hand over another password."
  type        = number
}

variable "key" {
  description = "Key that encrypts what is stored, and the identity that may use it."
  type        = object({ id = string, identity_id = string })
}

variable "geo_key" {
  description = "The same of the paired region, which then keeps copies of the backups; null for no copies."
  type        = object({ id = string, identity_id = string })
}

variable "log_workspace_id" {
  description = "Log Analytics workspace."
  type        = string
}

