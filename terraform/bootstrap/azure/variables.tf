variable "subscription_id" {
  description = "Subscription of one environment; the state of an environment lives in it, too."
  type        = string
}

variable "location" {
  description = "Region of the state."
  type        = string
}

variable "environment" {
  description = "dev, staging or prod: the forge's environment whose jobs may apply."
  type        = string

  validation {
    condition     = contains(["dev", "staging", "prod"], var.environment)
    error_message = "The environment is dev, staging or prod."
  }
}

variable "operator_cidrs" {
  description = "Networks from which people and the CI's runners reach the state."
  type        = list(string)

  validation {
    condition     = length(var.operator_cidrs) > 0 && !contains(var.operator_cidrs, "0.0.0.0/0")
    error_message = "Name the networks that operators and runners come from: a state is not for everybody."
  }
}

variable "repository" {
  description = "The repository whose CI may plan and apply, as owner/name."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$", var.repository))
    error_message = "The repository must be as owner/name, without a star: whoever matches it becomes administrator of this subscription."
  }
}
