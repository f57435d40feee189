variable "name" {
  description = "Name of the environment; every resource begins with it."
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

variable "secret_names" {
  description = "Names of the secrets, without the prefix: terraform/secrets.yaml."
  type        = set(string)

  validation {
    condition     = length(var.secret_names) > 0 && alltrue([for name in var.secret_names : can(regex("^[a-z0-9-]+$", name))])
    error_message = "Names are lower-case letters, digits and dashes: they are also names of Kubernetes Secrets."
  }
}

variable "is_protected" {
  description = "A deleted secret can be brought back for 30 days; else it is gone at once and its name free."
  type        = bool
}

variable "data_key_arn" {
  description = "Key that encrypts the values."
  type        = string
}
