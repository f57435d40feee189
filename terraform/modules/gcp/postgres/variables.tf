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
  description = "Id of the network, once managed services can be placed into it."
  type        = string
}

variable "database_version" {
  description = "PostgreSQL's version. The databases use the locale provider `builtin`, which came with 17."
  type        = string
  default     = "POSTGRES_18"

  validation {
    condition     = contains(["POSTGRES_17", "POSTGRES_18"], var.database_version)
    error_message = "The version is POSTGRES_17 or POSTGRES_18."
  }
}

variable "tier" {
  description = "Machine: db-custom-<cores>-<MB of memory>."
  type        = string

  validation {
    condition     = can(regex("^db-custom-[0-9]+-[0-9]+$", var.tier))
    error_message = "The tier is db-custom-<cores>-<MB>: shared cores have no service level and no room for 200 connections."
  }
}

variable "disk_gb" {
  description = "Size of the disk on the first day; it grows by itself."
  type        = number
}

variable "high_availability" {
  description = "A standby in a second zone that takes over by itself."
  type        = bool
}

variable "backup_days" {
  description = "How many daily backups are kept."
  type        = number

  validation {
    condition     = var.backup_days >= 7 && var.backup_days <= 365
    error_message = "Between 7 and 365 daily backups."
  }
}

variable "key" {
  description = "Key that encrypts the disk and the backups."
  type        = string
}

variable "replica" {
  description = "A copy in another region, which can be promoted: its region and its key there; null for none."
  type        = object({ region = string, key = string })
  default     = null
}

variable "admin_user" {
  description = "The administrator that makes databases and roles; a member of cloudsqlsuperuser."
  type        = string
}

variable "admin_password" {
  description = "Its password: handed to Cloud SQL and never kept in the state."
  type        = string
  sensitive   = true
  ephemeral   = true
}

variable "admin_password_version" {
  description = "Raised by one to hand over another password."
  type        = number
}

variable "deletion_protection" {
  description = "Whether Terraform and Cloud SQL refuse to delete the database."
  type        = bool
}
