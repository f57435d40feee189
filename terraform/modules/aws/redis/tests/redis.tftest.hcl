mock_provider "aws" {
  source = "../../../tests/mocks/aws"
}

variables {
  name                      = "isa-prod"
  node_type                 = "cache.m7g.large"
  nodes                     = 3
  snapshot_days             = 35
  is_protected              = true
  log_retention_days        = 365
  vpc_id                    = "vpc-1"
  subnet_ids                = ["subnet-a", "subnet-b", "subnet-c"]
  cluster_security_group_id = "sg-cluster"
  data_key_arn              = "arn:aws:kms:eu-central-1:111122223333:key/data"
  logs_key_arn              = "arn:aws:kms:eu-central-1:111122223333:key/logs"
}

run "nobody_logs_in_before_a_password_is_set" {
  assert {
    condition     = startswith(aws_elasticache_user.default.access_string, "off ") && length(coalesce(aws_elasticache_user.default.passwords, [])) == 0
    error_message = "The login must begin switched off and without a password: one given here would be in the state."
  }

  assert {
    condition     = aws_elasticache_user.default.user_name == "default" && aws_elasticache_user_group.this.user_ids == toset(["isa-prod-default"])
    error_message = "The group's one login must be named default: the adapter sends a password and no name."
  }
}

run "data_is_encrypted_on_the_way_and_on_disk" {
  assert {
    condition     = aws_elasticache_replication_group.this.transit_encryption_enabled && aws_elasticache_replication_group.this.transit_encryption_mode == "required" && tobool(aws_elasticache_replication_group.this.at_rest_encryption_enabled) && aws_elasticache_replication_group.this.kms_key_id == var.data_key_arn
    error_message = "TLS must be required, and disks and snapshots encrypted with the stores' key."
  }
}

run "a_full_cache_says_so" {
  assert {
    condition     = one([for parameter in aws_elasticache_parameter_group.this.parameter : parameter.value if parameter.name == "maxmemory-policy"]) == "noeviction"
    error_message = "Locks and counters live here: they must not vanish when memory is short."
  }
}

run "a_zone_may_be_lost" {
  assert {
    condition     = aws_elasticache_replication_group.this.automatic_failover_enabled && aws_elasticache_replication_group.this.multi_az_enabled && aws_elasticache_replication_group.this.num_cache_clusters == 3
    error_message = "With replicas a failover must happen by itself, to another zone."
  }
}

run "snapshots_are_taken_daily_before_maintenance" {
  assert {
    condition     = aws_elasticache_replication_group.this.snapshot_retention_limit == 35 && aws_elasticache_replication_group.this.snapshot_window == "02:30-03:30" && aws_elasticache_replication_group.this.final_snapshot_identifier == "isa-prod-final"
    error_message = "Daily snapshots, kept as long as asked, and a last one."
  }
}

run "only_the_cluster_connects" {
  assert {
    condition     = aws_vpc_security_group_ingress_rule.cluster.referenced_security_group_id == "sg-cluster" && aws_vpc_security_group_ingress_rule.cluster.cidr_ipv4 == null && aws_vpc_security_group_ingress_rule.cluster.from_port == 6379
    error_message = "Only the cluster's nodes may connect, and only to 6379."
  }
}

run "its_nodes_are_named_for_the_alarms" {
  assert {
    condition     = output.node_ids == ["isa-prod-001", "isa-prod-002", "isa-prod-003"]
    error_message = "Alarms name ElastiCache's nodes, which are <group>-001 and so on."
  }
}

run "one_node_has_nowhere_to_fail_over_to" {
  variables {
    nodes        = 1
    is_protected = false
  }

  assert {
    condition     = !aws_elasticache_replication_group.this.automatic_failover_enabled && !aws_elasticache_replication_group.this.multi_az_enabled && aws_elasticache_replication_group.this.transit_encryption_enabled
    error_message = "ElastiCache refuses failover with one node; TLS stays."
  }
}

run "no_snapshots_is_refused" {
  command = plan

  variables {
    snapshot_days = 0
  }

  expect_failures = [var.snapshot_days]
}

run "more_nodes_than_zones_are_refused" {
  command = plan

  variables {
    nodes = 4
  }

  expect_failures = [var.nodes]
}

run "a_type_of_another_service_is_refused" {
  command = plan

  variables {
    node_type = "db.t4g.medium"
  }

  expect_failures = [var.node_type]
}
