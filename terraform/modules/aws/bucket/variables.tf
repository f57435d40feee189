variable "name" {
  description = "Name of the bucket; no other account may have it."
  type        = string
}

variable "key_arn" {
  description = "Key that encrypts the objects; null for S3's own, where a service of AWS that knows no key of ours writes."
  type        = string
}

variable "days" {
  description = "After this objects are deleted; null for never."
  type        = number
  default     = null
}

variable "days_below" {
  description = "Only objects whose names begin so are deleted by their age."
  type        = string
  default     = ""
}

variable "undo_days" {
  description = "How long a deletion or an overwriting can be undone."
  type        = number

  validation {
    condition     = var.undo_days >= 7
    error_message = "A week at least: a mistake is not always seen on the day."
  }
}

variable "is_protected" {
  description = "Refuse to delete the bucket with objects in it."
  type        = bool
}

variable "writers" {
  description = "Services of AWS that write here: what they may do, with objects or with the bucket, and on whose behalf."
  type = list(object({
    service    = string
    actions    = list(string)
    of_objects = bool
    only_for   = map(string)
  }))
  default = []

  validation {
    condition     = alltrue([for writer in var.writers : length(writer.only_for) > 0])
    error_message = "Say for whom the service writes (only_for): else another account's resources could make it write here."
  }
}
