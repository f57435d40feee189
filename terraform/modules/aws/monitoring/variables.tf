variable "name" {
  description = "Name of the environment; every resource begins with it."
  type        = string
}

variable "environment" {
  description = "The environment, as its resources are tagged."
  type        = string
}

variable "emails" {
  description = "Who is told; each address confirms its subscription by a mail from AWS."
  type        = set(string)

  validation {
    condition     = length(var.emails) > 0 && alltrue([for email in var.emails : can(regex("^[^@ ]+@[^@ ]+[.][^@ ]+$", email))])
    error_message = "Name at least one mail address: an alarm that nobody hears is none."
  }
}

variable "monthly_budget_usd" {
  description = "What the environment may cost a month; told at 80 % of it, and when the forecast passes it."
  type        = number

  validation {
    condition     = var.monthly_budget_usd > 0
    error_message = "The budget must be above zero."
  }
}

variable "postgres_identifier" {
  description = "Name of the database instance in metrics."
  type        = string
}

variable "kafka_name" {
  description = "Name of the MSK cluster in metrics."
  type        = string
}

variable "redis_node_ids" {
  description = "Names of the cache's nodes in metrics."
  type        = list(string)
}

variable "cluster_name" {
  description = "Name of the EKS cluster."
  type        = string
}

variable "logs_key_arn" {
  description = "Key that encrypts the topic."
  type        = string
}
