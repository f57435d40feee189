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
  description = "Second region of the backup bucket; empty when the environment keeps no copies."
  type        = string
}

variable "multi_region" {
  description = "Where the two-region backup bucket belongs: eu, us or asia."
  type        = string
}

variable "key" {
  description = "Key of what stays in the region."
  type        = string
}

variable "backup_key" {
  description = "Key of the backup bucket: of the multi-region where it has two."
  type        = string
}

variable "loki_days" {
  description = "How long log chunks are kept at most; Loki's own retention is shorter."
  type        = number
}

variable "backup_days" {
  description = "How long backups are kept."
  type        = number
}
