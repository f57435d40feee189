variable "name" {
  description = "Name of the environment; every resource begins with it."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{2,13}$", var.name))
    error_message = "The name must be 3 to 14 lower-case letters, digits and dashes, as in isa-dev: a service account's id has 30."
  }
}


variable "prefix" {
  description = "What every entry's name begins with."
  type        = string

  validation {
    condition     = can(regex("^isa-[a-z]+-$", var.prefix))
    error_message = "The prefix must be isa-<environment>-, as in terraform/contract.yaml."
  }
}

variable "secret_names" {
  description = "Names of the secrets, without the prefix: terraform/secrets.yaml."
  type        = set(string)

  validation {
    condition     = length(var.secret_names) > 0 && alltrue([for name in var.secret_names : can(regex("^[a-z0-9-]+$", name))])
    error_message = "Names are lower-case letters, digits and dashes: they are also names of Kubernetes Secrets."
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
  description = "After so many days Secret Manager asks for a new value."
  type        = number

  validation {
    condition     = var.rotation_days >= 1 && var.rotation_days <= 365
    error_message = "Between 1 and 365 days."
  }
}

variable "keys" {
  description = "Key of each location that keeps the secrets: the region's, and the replica's where there is one."
  type        = map(string)
}

variable "topics_key" {
  description = "Key of the topic that asks for new values."
  type        = string
}
