variable "name" {
  description = "Name of the environment; every resource begins with it."
  type        = string
}

variable "domain" {
  description = "Domain of the environment; its parent zone delegates to ours."
  type        = string

  validation {
    condition     = can(regex("^([a-z0-9]([a-z0-9-]*[a-z0-9])?[.])+[a-z]{2,}$", var.domain))
    error_message = "The domain must be as dev.example.com: lower case, no dot at its end."
  }
}

variable "has_certificate" {
  description = "Make an ACM certificate too; needed when the edge is an application load balancer. It is issued once the parent zone delegates."
  type        = bool
}

variable "is_protected" {
  description = "Refuse to delete a zone with records in it."
  type        = bool
}
