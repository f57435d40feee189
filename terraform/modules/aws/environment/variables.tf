variable "environment" {
  description = "dev, staging or prod."
  type        = string

  validation {
    condition     = contains(["dev", "staging", "prod"], var.environment)
    error_message = "The environment is dev, staging or prod: the charts have values for these."
  }
}

variable "domain" {
  description = "Domain that the environment answers under."
  type        = string
}

variable "has_certificate" {
  description = "Make an ACM certificate, for an application load balancer at the edge."
  type        = bool
  default     = false
}

variable "cidr" {
  description = "Addresses of the VPC, a private /16 that no peered network has."
  type        = string
}

variable "zones" {
  description = "Three zones of the region. Named, not looked up: a list that changes would replace every subnet."
  type        = list(string)
}

variable "nat_per_zone" {
  description = "A NAT gateway a zone."
  type        = bool

  validation {
    condition     = var.nat_per_zone || var.environment != "prod"
    error_message = "Production needs a NAT gateway a zone, else the loss of one zone takes the others' way out."
  }
}

variable "public_access_cidrs" {
  description = "Networks that reach the Kubernetes API from outside; empty for nobody."
  type        = list(string)
}

variable "administrators" {
  description = "IAM roles that administer the cluster, by a name of your own."
  type        = map(string)
}

variable "node_groups" {
  description = "Groups of nodes by name."
  type = map(object({
    instance_types = list(string)
    min            = number
    max            = number
    spot           = optional(bool, false)
    disk_gib       = optional(number, 80)
  }))

  validation {
    condition     = var.environment != "prod" || alltrue([for group in values(var.node_groups) : !group.spot])
    error_message = "Production runs on no spot nodes: they may all leave within two minutes."
  }
}

variable "postgres" {
  description = "Size of the database."
  type = object({
    instance_class  = string
    multi_az        = bool
    storage_gib     = number
    max_storage_gib = number
  })

  validation {
    condition     = var.postgres.multi_az || var.environment != "prod"
    error_message = "Production's database needs its standby (multi_az): else a zone's loss is an outage of hours."
  }
}

variable "kafka" {
  description = "Size of each of the three brokers."
  type = object({
    instance_type  = string
    volume_gib     = number
    max_volume_gib = number
  })
}

variable "redis" {
  description = "Size of the cache."
  type = object({
    node_type = string
    nodes     = number
  })

  validation {
    condition     = var.redis.nodes >= 2 || var.environment != "prod"
    error_message = "Production's cache needs a replica at least: one node has nowhere to fail over to."
  }
}

variable "backup_days" {
  description = "How long backups are kept, and how far back a point in time can be restored."
  type        = number

  validation {
    condition     = var.backup_days == 35 || var.environment != "prod"
    error_message = "Production keeps 35 days, the longest that RDS restores from."
  }
}

variable "replica" {
  description = "What the second region has for copies (modules/aws/replica); null for no copies."
  type = object({
    bucket_arn = string
    key_arn    = string
    vault_arn  = string
  })
  default = null

  validation {
    condition     = var.replica != null || var.environment != "prod"
    error_message = "Production copies its backups to a second region: give the outputs of modules/aws/replica."
  }
}

variable "loki_days" {
  description = "How long Loki's objects are kept."
  type        = number
}

variable "log_retention_days" {
  description = "How long CloudWatch keeps logs."
  type        = number

  validation {
    condition     = contains([7, 14, 30, 60, 90, 180, 365, 400, 731], var.log_retention_days)
    error_message = "CloudWatch knows 7, 14, 30, 60, 90, 180, 365, 400 and 731 days."
  }

  validation {
    condition     = var.log_retention_days >= 365 || var.environment != "prod"
    error_message = "Production keeps logs, its audit log among them, for a year."
  }
}

variable "secret_names" {
  description = "Names of the secrets, without the prefix."
  type        = set(string)
}

variable "alarm_emails" {
  description = "Who hears of alarms."
  type        = set(string)
}

variable "monthly_budget_usd" {
  description = "What the environment may cost a month."
  type        = number
}
