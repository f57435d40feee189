variable "name" {
  description = "Name of the environment; every resource begins with it."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{2,13}$", var.name))
    error_message = "The name must be 3 to 14 lower-case letters, digits and dashes, as in isa-dev: a service account's id has 30."
  }
}


variable "alarm_emails" {
  description = "Who hears of alarms."
  type        = set(string)

  validation {
    condition     = length(var.alarm_emails) > 0 && alltrue([for email in var.alarm_emails : can(regex("^[^@ ]+@[^@ ]+$", email))])
    error_message = "At least one e-mail address."
  }
}

variable "postgres_instance" {
  description = "Name of the Cloud SQL instance."
  type        = string
}

variable "redis_instance" {
  description = "Name of the Memorystore instance."
  type        = string
}

variable "rotation_subscription" {
  description = "Subscription in which a message waits for each secret that is due."
  type        = string
}

variable "log_days" {
  description = "How long Cloud Logging keeps logs."
  type        = number
}

variable "audited_services" {
  description = "Services of which each read of data is written down, too."
  type        = set(string)
  default     = ["cloudkms.googleapis.com", "cloudsql.googleapis.com", "container.googleapis.com", "secretmanager.googleapis.com", "storage.googleapis.com"]
}

variable "billing_account" {
  description = "Billing account of the project, for the budget; empty where somebody else watches the bill."
  type        = string
}

variable "monthly_budget" {
  description = "What a month may cost, in the currency of the billing account."
  type        = number

  validation {
    condition     = var.monthly_budget > 0 && floor(var.monthly_budget) == var.monthly_budget
    error_message = "A whole number above zero."
  }
}
