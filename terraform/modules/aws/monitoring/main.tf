# Alarms on what only AWS sees, and on money. What the services see of themselves is Prometheus's (observability/).

data "aws_caller_identity" "current" {}

resource "aws_sns_topic" "alarms" {
  name              = "${var.name}-alarms"
  kms_master_key_id = var.logs_key_arn
}

resource "aws_sns_topic_policy" "alarms" {
  arn = aws_sns_topic.alarms.arn
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "ServicesPublish"
      Effect    = "Allow"
      Principal = { Service = ["cloudwatch.amazonaws.com", "budgets.amazonaws.com", "events.rds.amazonaws.com", "backup.amazonaws.com"] }
      Action    = "sns:Publish"
      Resource  = [aws_sns_topic.alarms.arn]
      Condition = { StringEquals = { "aws:SourceAccount" = data.aws_caller_identity.current.account_id } }
    }]
  })
}

resource "aws_sns_topic_subscription" "email" {
  for_each = var.emails

  topic_arn = aws_sns_topic.alarms.arn
  protocol  = "email"
  endpoint  = each.value
}

locals {
  postgres = { DBInstanceIdentifier = var.postgres_identifier }
  kafka    = { "Cluster Name" = var.kafka_name }
  cluster  = { ClusterName = var.cluster_name }

  alarms = merge(
    {
      postgres-cpu          = { namespace = "AWS/RDS", metric = "CPUUtilization", dimensions = local.postgres, statistic = "Average", above = 80, says = "PostgreSQL is busy above 80 %" }
      postgres-disk         = { namespace = "AWS/RDS", metric = "FreeStorageSpace", dimensions = local.postgres, statistic = "Minimum", below = 5 * 1024 * 1024 * 1024, says = "PostgreSQL has less than 5 GiB of disk left, so its growth has reached its limit" }
      postgres-memory       = { namespace = "AWS/RDS", metric = "FreeableMemory", dimensions = local.postgres, statistic = "Average", below = 256 * 1024 * 1024, says = "PostgreSQL has less than 256 MiB of memory left" }
      postgres-transactions = { namespace = "AWS/RDS", metric = "MaximumUsedTransactionIDs", dimensions = local.postgres, statistic = "Maximum", above = 1000000000, says = "PostgreSQL has used half of its transaction numbers: vacuum does not keep up" }
      kafka-offline         = { namespace = "AWS/Kafka", metric = "OfflinePartitionsCount", dimensions = local.kafka, statistic = "Maximum", above = 0, says = "Kafka has partitions that nobody can write" }
      kafka-controller      = { namespace = "AWS/Kafka", metric = "ActiveControllerCount", dimensions = local.kafka, statistic = "Maximum", below = 1, says = "Kafka has no controller" }
      cluster-pending       = { namespace = "AWS/EKS", metric = "scheduler_pending_pods_UNSCHEDULABLE", dimensions = local.cluster, statistic = "Maximum", above = 0, says = "Pods find no node although the node groups may grow" }
      cluster-errors        = { namespace = "AWS/EKS", metric = "apiserver_request_total_5XX", dimensions = local.cluster, statistic = "Sum", above = 50, says = "The Kubernetes API fails" }
    },
    { for broker in range(1, 4) : "kafka-disk-${broker}" => {
      namespace = "AWS/Kafka", metric = "KafkaDataLogsDiskUsed", dimensions = merge(local.kafka, { "Broker ID" = tostring(broker) }), statistic = "Maximum", above = 80, says = "Kafka's broker ${broker} has used 80 % of its disk"
    } },
    { for node in var.redis_node_ids : "redis-memory-${node}" => {
      namespace = "AWS/ElastiCache", metric = "DatabaseMemoryUsagePercentage", dimensions = { CacheClusterId = node }, statistic = "Maximum", above = 80, says = "Redis has used 80 % of its memory; at 100 % it refuses writes"
    } },
    { for node in var.redis_node_ids : "redis-cpu-${node}" => {
      namespace = "AWS/ElastiCache", metric = "EngineCPUUtilization", dimensions = { CacheClusterId = node }, statistic = "Average", above = 80, says = "Redis's one thread is busy above 80 %"
    } },
  )
}

resource "aws_cloudwatch_metric_alarm" "this" {
  for_each = local.alarms

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.says
  namespace           = each.value.namespace
  metric_name         = each.value.metric
  dimensions          = each.value.dimensions
  statistic           = each.value.statistic
  comparison_operator = try(each.value.above, null) != null ? "GreaterThanThreshold" : "LessThanThreshold"
  threshold           = try(each.value.above, null) != null ? each.value.above : each.value.below
  period              = 300
  evaluation_periods  = 3
  treat_missing_data  = "missing" # a store that is restarted is no alarm; one that is gone fails its users, whom Prometheus watches
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]
}

resource "aws_db_event_subscription" "this" {
  name             = "${var.name}-postgres"
  sns_topic        = aws_sns_topic.alarms.arn
  source_type      = "db-instance"
  source_ids       = [var.postgres_identifier]
  event_categories = ["failover", "failure", "low storage", "recovery"]
}

resource "aws_budgets_budget" "this" {
  name         = "${var.name}-monthly"
  budget_type  = "COST"
  limit_amount = tostring(var.monthly_budget_usd)
  limit_unit   = "USD"
  time_unit    = "MONTHLY"

  cost_filter {
    name   = "TagKeyValue"
    values = ["user:isa-cloud.io/environment${"$"}${var.environment}"]
  }

  dynamic "notification" {
    for_each = { ACTUAL = 80, FORECASTED = 100 }

    content {
      notification_type         = notification.key
      threshold                 = notification.value
      threshold_type            = "PERCENTAGE"
      comparison_operator       = "GREATER_THAN"
      subscriber_sns_topic_arns = [aws_sns_topic.alarms.arn]
    }
  }
}
