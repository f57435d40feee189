mock_provider "azurerm" {
  source = "../../../tests/mocks/azure"
}

variables {
  resource_group_name = "isa-prod"
  domain              = "isa.example.com"
}

run "only_one_authority_may_sign_certificates" {
  command = plan

  assert {
    condition     = toset([for record in azurerm_dns_caa_record.this.record : "${record.tag} ${record.value}"]) == toset(["issue letsencrypt.org", "issuewild letsencrypt.org"])
    error_message = "The CAA record must name the authority of cert-manager's issuer."
  }
}

run "the_zone_is_the_domain" {
  command = plan

  assert {
    condition     = azurerm_dns_zone.this.name == "isa.example.com"
    error_message = "The zone must be the environment's domain."
  }
}

run "a_trailing_dot_is_refused" {
  command = plan

  variables {
    domain = "isa.example.com."
  }

  expect_failures = [var.domain]
}
