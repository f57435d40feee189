variable "resource_group_name" {
  description = "Resource group of the environment."
  type        = string
}

variable "domain" {
  description = "Domain that the environment answers under; its parent delegates it to the zone's name servers."
  type        = string

  validation {
    condition     = can(regex("^([a-z0-9-]+\\.)+[a-z]{2,}$", var.domain))
    error_message = "A domain name in lower case without a dot at its end, such as dev.example.com."
  }
}

variable "certificate_issuer" {
  description = "The only authority that may sign for the domain: what cert-manager's issuer uses."
  type        = string
  default     = "letsencrypt.org"
}

