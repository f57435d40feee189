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

variable "cidrs" {
  description = "Address ranges: the whole network, and in it nodes, the API server (/28), PostgreSQL and private endpoints; and beside it pods."
  type = object({
    network    = string
    nodes      = string
    pods       = string
    api_server = string
    postgres   = string
    endpoints  = string
  })

  validation {
    condition     = alltrue([for range in values(var.cidrs) : can(cidrhost(range, 0))])
    error_message = "Every range is an IPv4 block such as 10.10.0.0/20."
  }
}

variable "nat_addresses" {
  description = "How many fixed addresses outgoing traffic has: partners may allow-list them."
  type        = number

  validation {
    condition     = var.nat_addresses >= 1 && var.nat_addresses <= 16
    error_message = "Between 1 and 16 addresses."
  }
}

variable "ddos_protection_plan_id" {
  description = "The organisation's DDoS protection plan; empty for none: a plan costs as much as the rest, and one serves all networks."
  type        = string
}

