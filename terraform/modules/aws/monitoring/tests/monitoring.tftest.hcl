mock_provider "aws" {
  source = "../../../tests/mocks/aws"
}

variables {
  name                = "isa-prod"
  environment         = "prod"
  emails              = ["platform@example.com"]
  monthly_budget_usd  = 5000
  postgres_identifier = "isa-prod"
  kafka_name          = "isa-prod"
  redis_node_ids      = ["isa-prod-001", "isa-prod-002"]
  cluster_name        = "isa-prod"
  logs_key_arn        = "arn:aws:kms:eu-central-1:111122223333:key/logs"
}

run "every_alarm_is_heard_when_it_begins_and_when_it_ends" {
  assert {
    condition     = alltrue([for alarm in aws_cloudwatch_metric_alarm.this : alarm.alarm_actions == toset([aws_sns_topic.alarms.arn]) && alarm.ok_actions == toset([aws_sns_topic.alarms.arn])])
    error_message = "Each alarm must be sent to the topic, also when it is over."
  }

  assert {
    condition     = aws_sns_topic.alarms.kms_master_key_id == var.logs_key_arn && aws_sns_topic_subscription.email["platform@example.com"].protocol == "email"
    error_message = "The topic must be encrypted, and somebody must hear it."
  }
}

run "each_store_is_watched" {
  assert {
    condition = length(setsubtract([
      "postgres-cpu", "postgres-disk", "postgres-memory", "kafka-offline", "kafka-controller", "kafka-disk-1", "kafka-disk-2", "kafka-disk-3",
      "redis-memory-isa-prod-001", "redis-memory-isa-prod-002", "cluster-pending", "cluster-errors",
    ], keys(aws_cloudwatch_metric_alarm.this))) == 0
    error_message = "An alarm is missing."
  }
}

run "an_alarm_fires_on_the_right_side" {
  assert {
    condition     = aws_cloudwatch_metric_alarm.this["postgres-cpu"].comparison_operator == "GreaterThanThreshold" && aws_cloudwatch_metric_alarm.this["postgres-cpu"].threshold == 80
    error_message = "CPU is too high above 80 %."
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.this["postgres-disk"].comparison_operator == "LessThanThreshold" && aws_cloudwatch_metric_alarm.this["kafka-controller"].comparison_operator == "LessThanThreshold"
    error_message = "Free disk and controllers are too few below their threshold."
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.this["kafka-offline"].comparison_operator == "GreaterThanThreshold" && aws_cloudwatch_metric_alarm.this["kafka-offline"].threshold == 0
    error_message = "One offline partition is one too many."
  }
}

run "only_services_of_this_account_publish" {
  assert {
    condition     = jsondecode(aws_sns_topic_policy.alarms.policy).Statement[0].Condition.StringEquals["aws:SourceAccount"] == "111122223333"
    error_message = "The topic must take nothing from other accounts."
  }
}

run "money_is_watched_by_the_environments_tag" {
  assert {
    condition     = aws_budgets_budget.this.limit_amount == "5000" && one(aws_budgets_budget.this.cost_filter).values == tolist(["user:isa-cloud.io/environment$prod"])
    error_message = "The budget must count what carries this environment's tag."
  }

  assert {
    condition     = { for notification in aws_budgets_budget.this.notification : notification.notification_type => notification.threshold } == { ACTUAL = 80, FORECASTED = 100 }
    error_message = "Told at 80 % of the money, and when the forecast passes all of it."
  }
}

run "an_alarm_that_nobody_hears_is_refused" {
  command = plan

  variables {
    emails = []
  }

  expect_failures = [var.emails]
}

run "a_budget_of_nothing_is_refused" {
  command = plan

  variables {
    monthly_budget_usd = 0
  }

  expect_failures = [var.monthly_budget_usd]
}
