variable "name" {
  description = "Name of the environment; every resource begins with it."
  type        = string
}

variable "requests_per_five_minutes" {
  description = "What one address may ask for in five minutes before it is refused."
  type        = number
  default     = 10000

  validation {
    condition     = var.requests_per_five_minutes >= 100
    error_message = "At least 100: below that a single page load would be refused."
  }
}

variable "log_retention_days" {
  description = "How long requests' records are kept."
  type        = number
}

variable "logs_key_arn" {
  description = "Key that encrypts the log."
  type        = string
}
