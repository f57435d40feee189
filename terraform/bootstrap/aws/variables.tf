variable "region" {
  description = "Region of the state."
  type        = string
}

variable "repository" {
  description = "The repository whose CI may plan and apply, as owner/name."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$", var.repository))
    error_message = "The repository must be as owner/name, without a star: whoever matches it becomes administrator of this account."
  }
}
