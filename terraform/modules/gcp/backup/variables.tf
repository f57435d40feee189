variable "name" {
  description = "Name of the environment; every resource begins with it."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{2,13}$", var.name))
    error_message = "The name must be 3 to 14 lower-case letters, digits and dashes, as in isa-dev: a service account's id has 30."
  }
}

variable "location" {
  description = "Region that keeps the backups: another than the cluster's where copies are wanted."
  type        = string
}

variable "cluster_id" {
  description = "Full id of the cluster."
  type        = string
}

variable "namespaces" {
  description = "Namespaces whose volumes and resources are kept; the rest comes back from git."
  type        = list(string)
  default     = ["isa-data", "isa-cloud", "argocd", "dapr-system"]
}

variable "schedule" {
  description = "When, as cron in UTC."
  type        = string
  default     = "30 * * * *" # RPO 1 h
}

variable "retain_days" {
  description = "How long a backup is kept."
  type        = number
}

variable "lock_days" {
  description = "How long nobody can delete a backup."
  type        = number

  validation {
    condition     = var.lock_days >= 0 && var.lock_days <= 90
    error_message = "Between 0 and 90 days."
  }
}

variable "key" {
  description = "Key that encrypts the backups, of their location."
  type        = string
}
