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

variable "requests_per_minute" {
  description = "How many requests one address may make in a minute before it is refused."
  type        = number

  validation {
    condition     = var.requests_per_minute > 0
    error_message = "A number above zero."
  }
}

variable "is_enforced" {
  description = "Refuse; else only write down what would be refused, for the first days of an environment."
  type        = bool
}

