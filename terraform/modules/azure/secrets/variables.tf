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
  description = "Object id of whoever runs Terraform, who writes the first values."
  type        = string
}

variable "prefix" {
  description = "What every entry's name begins with."
  type        = string

  validation {
    condition     = can(regex("^isa-[a-z]+-$", var.prefix))
    error_message = "The prefix must be isa-<environment>-, as in terraform/contract.yaml."
  }
}

variable "values" {
  description = "Values that the cloud itself made, by secret; kept out of the state."
  type        = map(string)
  ephemeral   = true
}

variable "value_versions" {
  description = "By secret, what changes when its value does: only then is a new version written."
  type        = map(number)
}

variable "rotation_days" {
  description = "After so many days a value expires; a month before, people are told."
  type        = number

  validation {
    condition     = var.rotation_days >= 60 && var.rotation_days <= 365
    error_message = "Between 60 and 365 days: people are told 30 days before."
  }
}

variable "subnet_id" {
  description = "Subnet of private endpoints."
  type        = string
}

variable "private_zone_id" {
  description = "Private zone of Key Vault."
  type        = string
}

variable "log_workspace_id" {
  description = "Log Analytics workspace."
  type        = string
}

