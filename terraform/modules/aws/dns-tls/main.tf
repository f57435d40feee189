# The environment's zone, which external-dns writes, and a certificate for load balancers that end TLS themselves. Gateways in the
# cluster have theirs from cert-manager.

resource "aws_route53_zone" "this" {
  #checkov:skip=CKV2_AWS_38:DNSSEC needs a key in us-east-1 and a DS record that the parent's owner sets; signed without it the domain would be gone
  #checkov:skip=CKV2_AWS_39:Query logs can be kept in us-east-1 only; who asks for a public name is no secret of ours
  name          = var.domain
  comment       = "isA Cloud, ${var.name}"
  force_destroy = !var.is_protected
}

# Only these may issue certificates for the domain.
resource "aws_route53_record" "caa" {
  zone_id = aws_route53_zone.this.zone_id
  name    = var.domain
  type    = "CAA"
  ttl     = 3600
  records = ["0 issue \"letsencrypt.org\"", "0 issue \"amazon.com\""]
}

resource "aws_acm_certificate" "this" {
  count = var.has_certificate ? 1 : 0

  domain_name               = var.domain
  subject_alternative_names = ["*.${var.domain}"]
  validation_method         = "DNS"

  lifecycle {
    create_before_destroy = true
  }
}

# The name and its wildcard are proven by the same record.
resource "aws_route53_record" "proof" {
  count = var.has_certificate ? 1 : 0

  zone_id         = aws_route53_zone.this.zone_id
  name            = tolist(aws_acm_certificate.this[0].domain_validation_options)[0].resource_record_name
  type            = tolist(aws_acm_certificate.this[0].domain_validation_options)[0].resource_record_type
  records         = [tolist(aws_acm_certificate.this[0].domain_validation_options)[0].resource_record_value]
  ttl             = 60
  allow_overwrite = true
}
