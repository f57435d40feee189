output "host" {
  description = "Host of the writer; stays the same when the standby takes over."
  value       = aws_db_instance.this.address
}

output "port" {
  description = "Port."
  value       = aws_db_instance.this.port
}

output "admin_user" {
  description = "The administrator."
  value       = aws_db_instance.this.username
}

output "admin_secret_arn" {
  description = "Entry of Secrets Manager with the administrator's password, as JSON with the keys username and password."
  value       = aws_db_instance.this.master_user_secret[0].secret_arn
}

output "arn" {
  description = "ARN of the instance."
  value       = aws_db_instance.this.arn
}

output "identifier" {
  description = "Name of the instance in metrics."
  value       = aws_db_instance.this.identifier
}
