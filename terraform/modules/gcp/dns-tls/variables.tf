variable "name" {
  description = "Name of the environment; every resource begins with it."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{2,13}$", var.name))
    error_message = "The name must be 3 to 14 lower-case letters, digits and dashes, as in isa-dev: a service account's id has 30."
  }
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
