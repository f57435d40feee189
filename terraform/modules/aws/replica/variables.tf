variable "name" {
  description = "Name of the environment; every resource begins with it."
  type        = string
}

variable "postgres_arn" {
  description = "The database whose backups are copied."
  type        = string
}

variable "keep_days" {
  description = "How long copies are kept, also how far back a point in time can be restored here."
  type        = number

  validation {
    condition     = var.keep_days >= 7 && var.keep_days <= 35
    error_message = "Copies are kept 7 to 35 days: RDS allows no more, and a week is the least that helps."
  }
}
