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

variable "subnet_id" {
  description = "Subnet of private endpoints."
  type        = string
}

variable "private_zone_id" {
  description = "Private zone of Event Hubs."
  type        = string
}

variable "processing_units" {
  description = "Size: each carries some 5 to 10 MB/s in, and 200 partitions."
  type        = number

  validation {
    condition     = contains([1, 2, 4, 6, 8, 10, 12, 16], var.processing_units)
    error_message = "Azure sells 1, 2, 4, 6, 8, 10, 12 or 16."
  }
}

variable "topics" {
  description = "Topics by name, as charts/derived/topics.yaml has them."
  type = map(object({
    partitions = number
    config     = map(string)
  }))

  validation {
    condition     = length(var.topics) <= 100 * var.processing_units && sum(values(var.topics)[*].partitions) <= 200 * var.processing_units
    error_message = "A processing unit has room for 100 event hubs and 200 partitions: raise processing_units."
  }

  validation {
    condition     = alltrue([for topic in var.topics : tonumber(lookup(topic.config, "retention.ms", "0")) <= 90 * 24 * 3600 * 1000])
    error_message = "Event Hubs keeps records for 90 days at most."
  }
}

variable "key" {
  description = "Key that encrypts what is stored, and the identity that may use it."
  type        = object({ id = string, identity_id = string })
}

variable "log_workspace_id" {
  description = "Log Analytics workspace."
  type        = string
}

