variable "name" {
  description = "Name of the environment; every resource begins with it."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{2,19}$", var.name))
    error_message = "The name must be 3 to 20 lower-case letters, digits and dashes, as in isa-dev: some services allow no more."
  }
}
