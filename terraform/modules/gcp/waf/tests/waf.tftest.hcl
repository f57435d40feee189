mock_provider "google" {
  source = "../../../tests/mocks/gcp"
}

variables {
  name                = "isa-prod"
  requests_per_minute = 1200
  is_preview          = false
}

run "attacks_are_refused" {
  command = plan

  assert {
    condition     = length([for rule in google_compute_security_policy.this.rule : rule if rule.action == "deny(403)" ? !rule.preview : false]) == 10
    error_message = "Nine rule sets and the one against Log4Shell must refuse."
  }
}

run "one_address_cannot_take_all" {
  command = plan

  assert {
    condition     = one([for rule in google_compute_security_policy.this.rule : rule.rate_limit_options[0].rate_limit_threshold[0].count if rule.action == "throttle"]) == 1200
    error_message = "The limit of requests must be the one given."
  }
}

run "a_new_environment_only_looks" {
  command = plan

  variables {
    is_preview = true
  }

  assert {
    condition     = alltrue([for rule in google_compute_security_policy.this.rule : rule.preview if rule.action != "allow"])
    error_message = "In preview no rule may refuse."
  }
}
