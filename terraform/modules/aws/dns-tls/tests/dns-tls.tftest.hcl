mock_provider "aws" {
  source = "../../../tests/mocks/aws"
}

variables {
  name            = "isa-prod"
  domain          = "isa.example.com"
  has_certificate = true
  is_protected    = true
}

run "the_zone_is_ours_and_names_who_may_issue" {
  assert {
    condition     = aws_route53_zone.this.name == "isa.example.com" && !aws_route53_zone.this.force_destroy
    error_message = "The zone has the domain's name and is not deleted with records in it."
  }

  assert {
    condition     = aws_route53_record.caa.type == "CAA" && toset(aws_route53_record.caa.records) == toset(["0 issue \"letsencrypt.org\"", "0 issue \"amazon.com\""])
    error_message = "Only the issuers that are used may issue: cert-manager's and ACM."
  }
}

run "the_certificate_covers_every_host_and_is_proven_by_dns" {
  assert {
    condition     = aws_acm_certificate.this[0].domain_name == "isa.example.com" && contains(aws_acm_certificate.this[0].subject_alternative_names, "*.isa.example.com") && aws_acm_certificate.this[0].validation_method == "DNS"
    error_message = "api.<domain> and objects.<domain> need the wildcard."
  }

  assert {
    condition     = aws_route53_record.proof[0].name == "_a.mock." && aws_route53_record.proof[0].type == "CNAME"
    error_message = "The record that proves the domain must be in the zone."
  }
}

run "without_a_certificate_there_is_none" {
  variables {
    has_certificate = false
  }

  assert {
    condition     = length(aws_acm_certificate.this) == 0 && length(aws_route53_record.proof) == 0 && output.certificate_arn == ""
    error_message = "No certificate was asked for."
  }
}

run "a_domain_with_a_dot_at_its_end_is_refused" {
  command = plan

  variables {
    domain = "isa.example.com."
  }

  expect_failures = [var.domain]
}
