output "vpc_id" {
  description = "The VPC."
  value       = aws_vpc.this.id
}

output "public_subnet_ids" {
  description = "Subnets of load balancers, one a zone."
  value       = [for zone in var.zones : aws_subnet.public[zone].id]
}

output "private_subnet_ids" {
  description = "Subnets of nodes, one a zone."
  value       = [for zone in var.zones : aws_subnet.private[zone].id]
}

output "database_subnet_ids" {
  description = "Subnets of databases, brokers and caches, one a zone; nothing there reaches the internet."
  value       = [for zone in var.zones : aws_subnet.database[zone].id]
}
