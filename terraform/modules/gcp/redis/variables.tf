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

variable "high_availability" {
  description = "A second copy in another zone that takes over by itself."
  type        = bool
}

variable "memory_gb" {
  description = "Memory."
  type        = number

  validation {
    condition     = var.memory_gb >= 1 && var.memory_gb <= 300
    error_message = "Memory is 1 to 300 GB."
  }
}

variable "key" {
  description = "Key that encrypts the snapshots and what is swapped out."
  type        = string
}
