# What depends on whose account this is; the values are in terraform.tfvars. Sizes are in main.tf.

variable "region" {
  description = "Region that everything runs in."
  type        = string
}

variable "zones" {
  description = "Three zones of the region."
  type        = list(string)
}

variable "domain" {
  description = "Domain that the environment answers under."
  type        = string
}

variable "administrators" {
  description = "IAM roles that administer the cluster, by a name of your own."
  type        = map(string)
}

variable "public_access_cidrs" {
  description = "Networks that reach the Kubernetes API from outside; empty for nobody."
  type        = list(string)
  default     = []
}

variable "alarm_emails" {
  description = "Who hears of alarms, and of the budget."
  type        = set(string)
}
