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

variable "operator_cidrs" {
  description = "Networks from which Terraform and operators reach what is otherwise private."
  type        = list(string)
}

variable "subnet_id" {
  description = "Subnet of private endpoints."
  type        = string
}

variable "private_zone_id" {
  description = "Private zone of Blob Storage."
  type        = string
}

variable "has_copies" {
  description = "Copies in the paired region as well as over the zones."
  type        = bool
}

variable "loki_days" {
  description = "How long log chunks are kept at most; Loki's own retention is shorter."
  type        = number
}

variable "backup_days" {
  description = "How long backups are kept."
  type        = number
}

variable "key" {
  description = "Key that encrypts what is stored, and the identity that may use it."
  type        = object({ id = string, identity_id = string })
}

variable "log_workspace_id" {
  description = "Log Analytics workspace."
  type        = string
}

