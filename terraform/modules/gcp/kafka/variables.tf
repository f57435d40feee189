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

variable "subnetwork" {
  description = "Id of the subnetwork from which the brokers are reached."
  type        = string
}

variable "vcpus" {
  description = "Cores of all brokers together; at least 3, one a zone."
  type        = number

  validation {
    condition     = var.vcpus >= 3
    error_message = "A cluster has at least 3 cores, one a zone."
  }
}

variable "memory_gb" {
  description = "Memory of all brokers together: 1 to 8 GiB a core."
  type        = number

  validation {
    condition     = var.memory_gb >= var.vcpus && var.memory_gb <= 8 * var.vcpus
    error_message = "Memory is 1 to 8 GiB a core."
  }
}

variable "key" {
  description = "Key that encrypts what the brokers store."
  type        = string
}

variable "topics" {
  description = "Topics by name, as charts/derived/topics.yaml has them."
  type = map(object({
    partitions = number
    replicas   = number
    config     = map(string)
  }))

  validation {
    condition     = alltrue([for topic in var.topics : topic.replicas == 3])
    error_message = "Three copies of every topic, one a zone."
  }
}

variable "client" {
  description = "E-mail of the service account that the services log in as."
  type        = string
}

variable "credential_version" {
  description = "Raised by one to make another key for that account; the older one is then deleted."
  type        = number
}
