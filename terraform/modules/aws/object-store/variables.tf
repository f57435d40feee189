variable "name" {
  description = "Name of the environment; every resource begins with it."
  type        = string
}

variable "loki_days" {
  description = "After this Loki's objects are deleted; a little more than Loki's own retention, which does it first."
  type        = number
}

variable "backup_days" {
  description = "How long what the backup jobs wrote is kept."
  type        = number

  validation {
    condition     = var.backup_days >= 7
    error_message = "Keep backups for a week at least: a mistake is not always seen on the day."
  }
}

variable "access_log_days" {
  description = "How long the record of who read a bucket is kept."
  type        = number
}

variable "is_protected" {
  description = "Refuse to delete a bucket with objects in it."
  type        = bool
}

variable "replica" {
  description = "Where backups are copied to in another region; null for nowhere."
  type = object({
    bucket_arn = string
    key_arn    = string
  })
  default = null
}

variable "data_key_arn" {
  description = "Key that encrypts the objects."
  type        = string
}
