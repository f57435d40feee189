variable "name" {
  description = "Name of the environment; every resource begins with it."
  type        = string
}

variable "environment" {
  description = "The environment, as its resources are tagged."
  type        = string
}

variable "keep_days" {
  description = "How long a daily backup is kept."
  type        = number

  validation {
    condition     = var.keep_days >= 7
    error_message = "Keep backups for a week at least: a mistake is not always seen on the day."
  }
}

variable "is_protected" {
  description = "Refuse to delete a vault with backups in it."
  type        = bool
}

variable "is_locked" {
  description = "Lock the vault: no backup can be deleted before its time by anybody. Cannot be taken back after three days."
  type        = bool
}

variable "replica" {
  description = "Vault in another region that each backup is copied to; null for none."
  type        = object({ vault_arn = string })
  default     = null
}

variable "alarm_topic_arn" {
  description = "Who hears of a backup that failed."
  type        = string
}

variable "data_key_arn" {
  description = "Key that encrypts the vault."
  type        = string
}
