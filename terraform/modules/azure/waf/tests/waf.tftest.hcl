mock_provider "azurerm" {
  source = "../../../tests/mocks/azure"
}

variables {
  name                = "isa-prod"
  location            = "westeurope"
  resource_group_name = "isa-prod"
  requests_per_minute = 1200
  is_enforced         = true
}

run "attacks_are_refused" {
  command = plan

  assert {
    condition     = azurerm_web_application_firewall_policy.this.policy_settings[0].mode == "Prevention" && toset([for set in azurerm_web_application_firewall_policy.this.managed_rules[0].managed_rule_set : "${set.type} ${set.version}"]) == toset(["Microsoft_DefaultRuleSet 2.1", "Microsoft_BotManagerRuleSet 1.1"])
    error_message = "The rule sets must refuse."
  }
}

run "one_address_cannot_take_all" {
  command = plan

  assert {
    condition     = azurerm_web_application_firewall_policy.this.custom_rules[0].rate_limit_threshold == 1200 && azurerm_web_application_firewall_policy.this.custom_rules[0].group_rate_limit_by == "ClientAddr"
    error_message = "The limit of requests must be the one given, for each address."
  }
}

run "a_new_environment_only_looks" {
  command = plan

  variables {
    is_enforced = false
  }

  assert {
    condition     = azurerm_web_application_firewall_policy.this.policy_settings[0].mode == "Detection"
    error_message = "Unless enforced no rule may refuse."
  }
}

run "no_requests_are_refused" {
  command = plan

  variables {
    requests_per_minute = 0
  }

  expect_failures = [var.requests_per_minute]
}
