variable "name" {
  description = "Name of the environment; every resource begins with it."
  type        = string
}

variable "cluster_name" {
  description = "Name of the cluster."
  type        = string
}

variable "cluster_arn" {
  description = "ARN of the cluster, whose pods alone may be these roles."
  type        = string
}

variable "oidc_provider_arn" {
  description = "The cluster's OIDC provider in IAM."
  type        = string
}

variable "oidc_issuer" {
  description = "Issuer of the pods' tokens, without https://."
  type        = string

  validation {
    condition     = !startswith(var.oidc_issuer, "https://")
    error_message = "Give the issuer without https://: IAM's conditions are named so."
  }
}

variable "kafka_arn" {
  description = "ARN of the MSK cluster."
  type        = string

  validation {
    condition     = can(regex("^arn:[^:]+:kafka:[^:]+:[0-9]{12}:cluster/[^/]+/[^/]+$", var.kafka_arn))
    error_message = "It must be the ARN of an MSK cluster: the ARNs of its topics and groups are made from it."
  }
}

variable "loki_bucket_arn" {
  description = "ARN of Loki's bucket."
  type        = string
}

variable "backup_bucket_arn" {
  description = "ARN of the backups' bucket."
  type        = string
}

variable "secret_prefix" {
  description = "What the names of readable secrets begin with."
  type        = string
}

variable "postgres_admin_secret_arn" {
  description = "RDS's own entry with the administrator's password."
  type        = string
}

variable "dns_zone" {
  description = "Id of the hosted zone."
  type        = string
}

variable "data_key_arn" {
  description = "Key of objects and secrets."
  type        = string
}

variable "waf_arn" {
  description = "The web ACL that the load balancer controller may attach."
  type        = string
}
