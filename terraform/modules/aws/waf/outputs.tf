output "arn" {
  description = "ARN of the web ACL, which the edge's load balancer attaches."
  value       = aws_wafv2_web_acl.this.arn
}
