variable "name" {
  description = "Name of the environment; every resource begins with it."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{2,11}$", var.name))
    error_message = "The name must be 3 to 12 lower-case letters, digits and dashes, as in isa-dev: a key vault's name has 24."
  }
}

variable "location" {
  description = "Region of the environment, such as westeurope."
  type        = string
}

variable "resource_group_name" {
  description = "Resource group of the environment."
  type        = string
}

variable "unique" {
  description = "Six characters that make world-wide names our own."
  type        = string
}

variable "resource_group_id" {
  description = "Id of the resource group, for the budget and service health."
  type        = string
}

variable "subscription_id" {
  description = "Id of the subscription, as /subscriptions/..."
  type        = string
}

variable "alarm_emails" {
  description = "Who hears of alarms."
  type        = set(string)

  validation {
    condition     = length(var.alarm_emails) > 0 && alltrue([for email in var.alarm_emails : can(regex("^[^@ ]+@[^@ ]+$", email))])
    error_message = "At least one e-mail address."
  }
}

variable "log_retention_days" {
  description = "How long Log Analytics keeps logs."
  type        = number

  validation {
    condition     = var.log_retention_days >= 30 && var.log_retention_days <= 730
    error_message = "Between 30 and 730 days."
  }
}

variable "monthly_budget" {
  description = "What a month may cost, in the currency of the subscription."
  type        = number

  validation {
    condition     = var.monthly_budget > 0
    error_message = "A number above zero."
  }
}

variable "network_id" {
  description = "Network whose flows are written down."
  type        = string
}

variable "network_watcher_name" {
  description = "Azure makes one a region: NetworkWatcher_<region>."
  type        = string
}

variable "server_id" {
  description = "Id of the PostgreSQL server."
  type        = string
}

variable "redis_id" {
  description = "Id of Redis."
  type        = string
}

variable "namespace_id" {
  description = "Id of the Event Hubs namespace."
  type        = string
}

variable "cluster_id" {
  description = "Id of the cluster."
  type        = string
}


