variable "name" {
  description = "Name of the environment; every resource begins with it."
  type        = string
}

variable "cidr" {
  description = "Addresses of the VPC: a /16 of a private range."
  type        = string

  validation {
    condition     = can(regex("^(10|172|192)[.].*/16$", var.cidr)) && can(cidrhost(var.cidr, 0))
    error_message = "The cidr must be a private /16, as 10.20.0.0/16: the subnets are cut for that size."
  }
}

variable "zones" {
  description = "Three zones of the region. Named, not looked up: a list that changes would replace every subnet."
  type        = list(string)

  validation {
    condition     = length(distinct(var.zones)) == 3
    error_message = "Name three different zones, as eu-central-1a: brokers, standbys and nodes are spread over them."
  }
}

variable "nat_per_zone" {
  description = "A NAT gateway in each zone, which production needs to outlive a zone; else one, which is cheaper."
  type        = bool
}

variable "interface_endpoints" {
  description = "AWS services that nodes reach without the internet; each costs a fixed price a zone."
  type        = set(string)
  default     = ["ecr.api", "ecr.dkr", "logs", "secretsmanager", "sts"]
}

variable "log_retention_days" {
  description = "How long flow logs are kept."
  type        = number
}

variable "logs_key_arn" {
  description = "Key that encrypts the flow logs."
  type        = string
}
