variable "environment" {
  description = "dev, staging or prod."
  type        = string

  validation {
    condition     = contains(["dev", "staging", "prod"], var.environment)
    error_message = "The environment must be dev, staging or prod."
  }
}

variable "region" {
  description = "Region that everything runs in, such as europe-west1."
  type        = string
}

variable "replica_region" {
  description = "Region of the copies; empty when the environment keeps none."
  type        = string

  validation {
    condition     = var.replica_region != "" || var.environment != "prod"
    error_message = "Production copies its backups to a second region."
  }
}

variable "multi_region" {
  description = "The multi-region that has both: eu, us or asia."
  type        = string
}

variable "domain" {
  description = "Domain that the environment answers under."
  type        = string
}

variable "cidrs" {
  description = "Address ranges: nodes, pods, services, the control plane (/28), and managed services."
  type = object({
    nodes         = string
    pods          = string
    services      = string
    control_plane = string
    managed       = string
  })
}

variable "authorized_networks" {
  description = "Who may reach the Kubernetes API by its address, name to block; none leaves the private one and the DNS name."
  type        = map(string)
}

variable "alarm_emails" {
  description = "Who hears of alarms."
  type        = set(string)
}

variable "secret_names" {
  description = "Names of the secrets, without the prefix."
  type        = set(string)
}

variable "billing_account" {
  description = "Billing account of the project, for the budget; empty where somebody else watches the bill."
  type        = string
}

variable "monthly_budget" {
  description = "What a month may cost, in the currency of the billing account."
  type        = number
}

variable "is_protected" {
  description = "Production: a standby of each database, deletion refused, keys in hardware, backups locked."
  type        = bool

  validation {
    condition     = var.is_protected || var.environment != "prod"
    error_message = "Production is protected."
  }
}

variable "release_channel" {
  description = "How early new versions of Kubernetes come: RAPID, REGULAR or STABLE."
  type        = string
}

variable "node_pools" {
  description = "Node pools by name; counts are totals over all zones."
  type = map(object({
    machine_type = string
    minimum      = number
    maximum      = number
    disk_gb      = number
    spot         = bool
  }))
}

variable "postgres" {
  description = "Size of PostgreSQL."
  type        = object({ tier = string, disk_gb = number })
}

variable "kafka" {
  description = "Size of all Kafka brokers together."
  type        = object({ vcpus = number, memory_gb = number })
}

variable "redis_gb" {
  description = "Memory of Redis."
  type        = number
}

variable "backup_days" {
  description = "How long backups are kept."
  type        = number

  validation {
    condition     = var.backup_days >= 35 || var.environment != "prod"
    error_message = "Production keeps 35 daily backups at least."
  }
}

variable "loki_days" {
  description = "How long Loki's objects are kept."
  type        = number
}

variable "log_days" {
  description = "How long logs are kept."
  type        = number

  validation {
    condition     = var.log_days >= 365 || var.environment != "prod"
    error_message = "Production keeps logs, its audit log among them, for a year."
  }
}

variable "postgres_admin_password" {
  description = "Password of PostgreSQL's administrator: TF_VAR_postgres_admin_password; goes to Cloud SQL and Secret Manager, never into the state."
  type        = string
  sensitive   = true
  ephemeral   = true

  validation {
    condition     = length(var.postgres_admin_password) >= 24
    error_message = "At least 24 characters: `openssl rand -hex 24` makes some."
  }
}

variable "credential_versions" {
  description = "Raise one by one when that credential changes: the administrator's password, Kafka's key, Redis' password or authority."
  type        = object({ postgres = number, kafka = number, redis = number })
  default     = { postgres = 1, kafka = 1, redis = 1 }
}
