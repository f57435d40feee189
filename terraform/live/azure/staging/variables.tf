# What depends on whose subscription this is; the values are in terraform.tfvars. Sizes are in main.tf.

variable "subscription_id" {
  description = "Subscription of this environment."
  type        = string
}

variable "location" {
  description = "Region that everything runs in; one with zones."
  type        = string
}

variable "domain" {
  description = "Domain that the environment answers under."
  type        = string
}

variable "administrator_group_ids" {
  description = "Entra groups whose members administer the cluster."
  type        = list(string)
}

variable "operator_cidrs" {
  description = "Networks from which Terraform and operators reach what is otherwise private."
  type        = list(string)
}

variable "alarm_emails" {
  description = "Who hears of alarms, and of the budget."
  type        = set(string)
}

variable "ddos_protection_plan_id" {
  description = "The organisation's DDoS protection plan; empty for none."
  type        = string
  default     = ""
}

variable "postgres_admin_password" {
  description = "Password of PostgreSQL's administrator: TF_VAR_postgres_admin_password, the same at every apply."
  type        = string
  sensitive   = true
  ephemeral   = true
}
