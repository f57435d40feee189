output "host" {
  description = "Address of PostgreSQL's writer, inside the network."
  value       = google_sql_database_instance.this.private_ip_address
}

output "port" {
  description = "Port of PostgreSQL."
  value       = "5432"
}

output "admin_user" {
  description = "The administrator that makes databases and roles."
  value       = google_sql_user.admin.name
}

output "instance" {
  description = "Name of the instance, as metrics call it."
  value       = google_sql_database_instance.this.name
}
