mock_provider "aws" {
  source = "../../../tests/mocks/aws"
}

variables {
  name                      = "isa-prod"
  instance_type             = "kafka.m7g.large"
  volume_gib                = 250
  max_volume_gib            = 2000
  log_retention_days        = 365
  vpc_id                    = "vpc-1"
  subnet_ids                = ["subnet-a", "subnet-b", "subnet-c"]
  cluster_security_group_id = "sg-cluster"
  data_key_arn              = "arn:aws:kms:eu-central-1:111122223333:key/data"
  logs_key_arn              = "arn:aws:kms:eu-central-1:111122223333:key/logs"
}

run "callers_are_known_by_iam_and_by_nothing_else" {
  assert {
    condition     = aws_msk_cluster.this.client_authentication[0].sasl[0].iam && !aws_msk_cluster.this.client_authentication[0].sasl[0].scram && !aws_msk_cluster.this.client_authentication[0].unauthenticated
    error_message = "IAM must be the only way in."
  }

  assert {
    condition     = strcontains(output.brokers, ":9098")
    error_message = "The brokers handed over must be those of the IAM listener."
  }
}

run "records_are_encrypted_on_the_way_and_on_disk" {
  assert {
    condition     = aws_msk_cluster.this.encryption_info[0].encryption_in_transit[0].client_broker == "TLS" && aws_msk_cluster.this.encryption_info[0].encryption_in_transit[0].in_cluster && aws_msk_cluster.this.encryption_info[0].encryption_at_rest_kms_key_arn == var.data_key_arn
    error_message = "TLS for clients and between brokers, and the stores' key for disks."
  }
}

run "one_zone_may_be_lost" {
  assert {
    condition     = aws_msk_cluster.this.number_of_broker_nodes == 3 && strcontains(aws_msk_configuration.this.server_properties, "default.replication.factor=3") && strcontains(aws_msk_configuration.this.server_properties, "min.insync.replicas=2") && strcontains(aws_msk_configuration.this.server_properties, "unclean.leader.election.enable=false")
    error_message = "Three brokers, three copies, two of which must have a record before it counts."
  }
}

run "topics_are_declared_and_records_have_room" {
  assert {
    condition     = strcontains(aws_msk_configuration.this.server_properties, "auto.create.topics.enable=false")
    error_message = "A topic that nobody declared must fail, not appear."
  }

  assert {
    condition     = strcontains(aws_msk_configuration.this.server_properties, "message.max.bytes=6291456") && strcontains(aws_msk_configuration.this.server_properties, "replica.fetch.max.bytes=6291456")
    error_message = "The broker must take, and copy, what docker-compose.yml's broker takes."
  }
}

run "disks_grow_and_never_shrink" {
  assert {
    condition     = aws_appautoscaling_target.storage.max_capacity == 2000 && aws_appautoscaling_policy.storage.target_tracking_scaling_policy_configuration[0].disable_scale_in
    error_message = "Disks grow up to max_volume_gib; MSK cannot shrink them."
  }
}

run "only_the_cluster_connects" {
  assert {
    condition     = aws_vpc_security_group_ingress_rule.cluster.referenced_security_group_id == "sg-cluster" && aws_vpc_security_group_ingress_rule.cluster.cidr_ipv4 == null && aws_vpc_security_group_ingress_rule.cluster.from_port == 9098 && aws_vpc_security_group_ingress_rule.cluster.to_port == 9098
    error_message = "Only the cluster's nodes may connect, and only to 9098."
  }
}

run "zookeeper_is_refused" {
  command = plan

  variables {
    kafka_version = "3.9.x"
  }

  expect_failures = [var.kafka_version]
}

run "brokers_that_kraft_does_not_run_on_are_refused" {
  command = plan

  variables {
    instance_type = "kafka.t3.small"
  }

  expect_failures = [var.instance_type]
}

run "two_zones_are_refused" {
  command = plan

  variables {
    subnet_ids = ["subnet-a", "subnet-b"]
  }

  expect_failures = [var.subnet_ids]
}

run "a_limit_below_the_disk_is_refused" {
  command = plan

  variables {
    max_volume_gib = 100
  }

  expect_failures = [var.max_volume_gib]
}
