variable "project" {
  description = "Project of one environment; the state of an environment lives in it, too."
  type        = string
}

variable "region" {
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

variable "repository" {
  description = "The repository whose CI may plan and apply, as owner/name."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$", var.repository))
    error_message = "The repository must be as owner/name, without a star: whoever matches it becomes administrator of this project."
  }
}
