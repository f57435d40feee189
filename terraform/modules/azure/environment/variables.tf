variable "environment" {
  description = "dev, staging or prod."
  type        = string

  validation {
    condition     = contains(["dev", "staging", "prod"], var.environment)
    error_message = "The environment is dev, staging or prod: the charts have values for these."
  }
}

variable "location" {
  description = "Region that everything runs in, such as westeurope; one with zones."
  type        = string
}

variable "replica_location" {
  description = "Its paired region, where Azure keeps geo-redundant copies; empty when the environment keeps none."
  type        = string

  validation {
    condition     = var.replica_location != "" || var.environment != "prod"
    error_message = "Production copies its backups to the paired region."
  }
}

variable "domain" {
  description = "Domain that the environment answers under."
  type        = string
}

variable "cidrs" {
  description = "Address ranges: the whole network, and in it nodes, the API server (/28), PostgreSQL and private endpoints; beside it pods and Services."
  type = object({
    network    = string
    nodes      = string
    api_server = string
    postgres   = string
    endpoints  = string
    pods       = string
    services   = string
  })
}

variable "ddos_protection_plan_id" {
  description = "The organisation's DDoS protection plan; empty for none."
  type        = string
}

variable "operator_cidrs" {
  description = "Networks from which Terraform and operators reach vaults, objects and, unless `is_api_private`, the Kubernetes API."
  type        = list(string)

  validation {
    condition     = length(var.operator_cidrs) > 0 && !contains(var.operator_cidrs, "0.0.0.0/0")
    error_message = "Name the networks that operators come from: everybody is nobody's operator."
  }
}

variable "is_api_private" {
  description = "The Kubernetes API has no public address: operators come from inside the network."
  type        = bool
}

variable "administrator_group_ids" {
  description = "Entra groups whose members administer the cluster."
  type        = list(string)
}


variable "alarm_emails" {
  description = "Who hears of alarms."
  type        = set(string)
}

variable "monthly_budget" {
  description = "What a month may cost, in the currency of the subscription."
  type        = number
}

variable "is_protected" {
  description = "Production: a standby of each database, a control plane with a service level, keys in hardware, backups that nobody can delete."
  type        = bool

  validation {
    condition     = var.is_protected || var.environment != "prod"
    error_message = "Production is protected."
  }
}

variable "system_pool" {
  description = "The pool of what the cluster itself runs."
  type        = object({ vm_size = string, minimum = number, maximum = number })
}

variable "node_pools" {
  description = "Pools of everything else, by name."
  type = map(object({
    vm_size = string
    minimum = number
    maximum = number
    disk_gb = number
  }))
}

variable "postgres" {
  description = "Size of PostgreSQL."
  type        = object({ sku_name = string, storage_mb = number })
}

variable "processing_units" {
  description = "Size of Event Hubs."
  type        = number
}

variable "redis_sku" {
  description = "Size of Redis."
  type        = string
}

variable "backup_days" {
  description = "How long backups are kept, and how far back a point in time can be restored."
  type        = number

  validation {
    condition     = var.backup_days == 35 || var.environment != "prod"
    error_message = "Production keeps 35 days, the longest that Azure restores from."
  }
}

variable "loki_days" {
  description = "How long Loki's objects are kept."
  type        = number
}

variable "log_retention_days" {
  description = "How long Log Analytics keeps logs."
  type        = number

  validation {
    condition     = var.log_retention_days >= 365 || var.environment != "prod"
    error_message = "Production keeps logs, its audit log among them, for a year."
  }
}

variable "postgres_admin_password" {
  description = "Password of PostgreSQL's administrator: TF_VAR_postgres_admin_password; goes to Azure and the vault, never into the state."
  type        = string
  sensitive   = true
  ephemeral   = true

  validation {
    condition     = length(var.postgres_admin_password) >= 24
    error_message = "At least 24 characters, of three kinds, as Azure wants: `echo Aa$(openssl rand -hex 24)` makes some."
  }
}

variable "credential_versions" {
  description = "Raise one by one when that credential changes: the administrator's password, Event Hubs' connection string, Redis' key."
  type        = object({ postgres = number, kafka = number, redis = number })
  default     = { postgres = 1, kafka = 1, redis = 1 }
}
