mock_provider "aws" {
  source = "../../../tests/mocks/aws"
}

variables {
  name               = "isa-prod"
  log_retention_days = 365
  logs_key_arn       = "arn:aws:kms:eu-central-1:111122223333:key/logs"
}

run "one_address_cannot_ask_for_everything" {
  assert {
    condition     = one([for rule in aws_wafv2_web_acl.this.rule : rule.statement[0].rate_based_statement[0].limit if rule.name == "rate-limit"]) == 10000
    error_message = "The rate limit must be the one asked for."
  }

  assert {
    condition     = one([for rule in aws_wafv2_web_acl.this.rule : length(rule.action[0].block) if rule.name == "rate-limit"]) == 1
    error_message = "Above the limit requests must be blocked, not counted."
  }
}

run "known_attacks_are_refused" {
  assert {
    condition     = length(setsubtract(["AWSManagedRulesCommonRuleSet", "AWSManagedRulesKnownBadInputsRuleSet", "AWSManagedRulesSQLiRuleSet", "AWSManagedRulesAmazonIpReputationList"], [for rule in aws_wafv2_web_acl.this.rule : rule.name])) == 0
    error_message = "A managed group of rules is missing."
  }

  assert {
    condition     = alltrue([for rule in aws_wafv2_web_acl.this.rule : length(rule.override_action[0].none) == 1 if rule.name != "rate-limit"])
    error_message = "A managed group must act; with `count` it only watches."
  }

  assert {
    condition     = length(distinct([for rule in aws_wafv2_web_acl.this.rule : rule.priority])) == length(aws_wafv2_web_acl.this.rule)
    error_message = "Two rules have the same priority: AWS refuses that."
  }
}

run "credentials_are_in_no_log" {
  assert {
    condition     = toset([for field in aws_wafv2_web_acl_logging_configuration.this.redacted_fields : field.single_header[0].name]) == toset(["authorization", "cookie"])
    error_message = "Authorization and cookies must be redacted."
  }

  assert {
    condition     = startswith(aws_cloudwatch_log_group.this.name, "aws-waf-logs-") && aws_cloudwatch_log_group.this.kms_key_id == var.logs_key_arn
    error_message = "WAF writes only to groups named aws-waf-logs-*."
  }
}

run "a_limit_below_a_page_is_refused" {
  command = plan

  variables {
    requests_per_five_minutes = 10
  }

  expect_failures = [var.requests_per_five_minutes]
}
