output "host" {
  description = "Address of Redis, inside the network."
  value       = google_redis_instance.this.host
}

output "port" {
  description = "Port of Redis, TLS."
  value       = tostring(google_redis_instance.this.port)
}

output "password" {
  description = "Redis' password."
  value       = google_redis_instance.this.auth_string
  sensitive   = true
}

output "ca" {
  description = "Certificates of the instance's own authority, PEM: no public one signs them."
  value       = join("\n", google_redis_instance.this.server_ca_certs[*].cert)
}

output "instance" {
  description = "Name of the instance, as metrics call it."
  value       = google_redis_instance.this.name
}
