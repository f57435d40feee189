variable "name" {
  description = "Name of the environment; every resource begins with it."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{2,13}$", var.name))
    error_message = "The name must be 3 to 14 lower-case letters, digits and dashes, as in isa-dev: a service account's id has 30."
  }
}

variable "region" {
  description = "Region of the environment, such as europe-west1."
  type        = string
}

variable "cidrs" {
  description = "Address ranges: nodes, pods, services, the control plane (/28), and managed services (reached by peering)."
  type = object({
    nodes         = string
    pods          = string
    services      = string
    control_plane = string
    managed       = string
  })
  validation {
    condition     = alltrue([for range in values(var.cidrs) : can(cidrhost(range, 0))])
    error_message = "Every range is an IPv4 block such as 10.10.0.0/20."
  }
  validation {
    condition     = endswith(var.cidrs.control_plane, "/28")
    error_message = "GKE's control plane takes exactly a /28."
  }
}

variable "nat_addresses" {
  description = "How many fixed addresses outgoing traffic has: partners may allow-list them."
  type        = number

  validation {
    condition     = var.nat_addresses >= 1 && var.nat_addresses <= 8
    error_message = "Between 1 and 8 addresses; each carries 64,512 connections a destination."
  }
}
