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

variable "replica_region" {
  description = "Region of the copies; empty when the environment keeps none."
  type        = string

  validation {
    condition     = var.replica_region != var.region
    error_message = "Copies belong into another region than the environment's own."
  }
}

variable "multi_region" {
  description = "Where the two-region backup bucket belongs, as Cloud Storage calls it: eu, us or asia."
  type        = string

  validation {
    condition     = contains(["eu", "us", "asia"], var.multi_region)
    error_message = "The multi-region is eu, us or asia."
  }
}

variable "protection_level" {
  description = "SOFTWARE, or HSM where a key must never have been in software."
  type        = string

  validation {
    condition     = contains(["SOFTWARE", "HSM"], var.protection_level)
    error_message = "The protection level is SOFTWARE or HSM."
  }
}
