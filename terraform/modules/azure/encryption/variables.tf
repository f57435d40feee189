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

variable "tenant_id" {
  description = "Entra tenant."
  type        = string
}

variable "administrator_id" {
  description = "Object id of whoever runs Terraform, who makes the keys."
  type        = string
}

variable "replica_location" {
  description = "Region of the copies; empty when the environment keeps none."
  type        = string

  validation {
    condition     = var.replica_location != var.location
    error_message = "Copies belong into another region than the environment's own."
  }
}

variable "is_hardware" {
  description = "Keys in hardware (vault and keys cost more), for production."
  type        = bool
}

