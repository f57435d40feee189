variable "name" {
  description = "Name of the environment; every resource begins with it."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{2,13}$", var.name))
    error_message = "The name must be 3 to 14 lower-case letters, digits and dashes, as in isa-dev: a service account's id has 30."
  }
}

variable "requests_per_minute" {
  description = "How many requests one address may make in a minute before it waits."
  type        = number
}

variable "is_preview" {
  description = "Rules only write down what they would refuse: for the first days of an environment."
  type        = bool
}
