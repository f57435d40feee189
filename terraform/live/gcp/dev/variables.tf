# What depends on whose project this is; the values are in terraform.tfvars. Sizes are in main.tf.

variable "project" {
  description = "Project of this environment, and of nothing else."
  type        = string
}

variable "region" {
  description = "Region that everything runs in."
  type        = string
}

variable "multi_region" {
  description = "The multi-region that has both: eu, us or asia."
  type        = string
}

variable "domain" {
  description = "Domain that the environment answers under."
  type        = string
}

variable "authorized_networks" {
  description = "Who may reach the Kubernetes API by its address, name to block; none leaves the private one and the DNS name."
  type        = map(string)
  default     = {}
}

variable "alarm_emails" {
  description = "Who hears of alarms, and of the budget."
  type        = set(string)
}

variable "billing_account" {
  description = "Billing account of the project, for the budget; empty where somebody else watches the bill."
  type        = string
  default     = ""
}

variable "postgres_admin_password" {
  description = "Password of PostgreSQL's administrator: TF_VAR_postgres_admin_password, the same at every apply."
  type        = string
  sensitive   = true
  ephemeral   = true
}
