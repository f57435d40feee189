mock_provider "google" {
  source = "../../../tests/mocks/gcp"
}

variables {
  name   = "isa-prod"
  domain = "isa.example.com"
}

run "answers_are_signed" {
  command = plan

  assert {
    condition     = google_dns_managed_zone.this.dnssec_config[0].state == "on" && alltrue([for key in google_dns_managed_zone.this.dnssec_config[0].default_key_specs : key.algorithm == "ecdsap256sha256"])
    error_message = "DNSSEC must be on."
  }
}

run "only_one_authority_may_sign_certificates" {
  command = plan

  assert {
    condition     = toset(google_dns_record_set.caa.rrdatas) == toset(["0 issue \"letsencrypt.org\"", "0 issuewild \"letsencrypt.org\""])
    error_message = "The CAA record must name the authority of cert-manager's issuer."
  }
}

run "a_trailing_dot_is_refused" {
  command = plan

  variables {
    domain = "isa.example.com."
  }

  expect_failures = [var.domain]
}
