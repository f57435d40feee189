output "zone_id" {
  description = "Id of the hosted zone."
  value       = aws_route53_zone.this.zone_id
}

output "zone_arn" {
  description = "ARN of the hosted zone."
  value       = aws_route53_zone.this.arn
}

output "name_servers" {
  description = "What the parent zone's NS record must say."
  value       = aws_route53_zone.this.name_servers
}

output "certificate_arn" {
  description = "The certificate; empty when there is none."
  value       = var.has_certificate ? aws_acm_certificate.this[0].arn : ""
}
