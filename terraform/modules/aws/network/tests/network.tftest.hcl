mock_provider "aws" {
  source = "../../../tests/mocks/aws"
}

variables {
  name               = "isa-dev"
  cidr               = "10.20.0.0/16"
  zones              = ["eu-central-1a", "eu-central-1b", "eu-central-1c"]
  nat_per_zone       = false
  log_retention_days = 30
  logs_key_arn       = "arn:aws:kms:eu-central-1:111122223333:key/logs"
}

run "three_kinds_of_subnets_lie_in_three_zones" {
  assert {
    condition = alltrue([for subnets in [aws_subnet.public, aws_subnet.private, aws_subnet.database] :
    toset([for subnet in subnets : subnet.availability_zone]) == toset(["eu-central-1a", "eu-central-1b", "eu-central-1c"])])
    error_message = "Each kind of subnet needs one in each of three zones."
  }

  assert {
    condition = length(distinct([for subnet in concat(values(aws_subnet.public), values(aws_subnet.private), values(aws_subnet.database)) :
    subnet.cidr_block])) == 9
    error_message = "Two subnets have the same addresses."
  }

  assert {
    condition     = aws_subnet.private["eu-central-1c"].cidr_block == "10.20.64.0/19" && aws_subnet.public["eu-central-1a"].cidr_block == "10.20.192.0/22" && aws_subnet.database["eu-central-1a"].cidr_block == "10.20.240.0/24"
    error_message = "The plan of addresses has moved: existing subnets would be replaced, with all that is in them."
  }
}

run "no_instance_gets_a_public_address" {
  assert {
    condition     = alltrue([for subnet in aws_subnet.public : !subnet.map_public_ip_on_launch])
    error_message = "Public subnets are for load balancers and NAT; nothing else may get a public address."
  }
}

run "load_balancers_find_their_subnets" {
  assert {
    condition     = alltrue([for subnet in aws_subnet.public : subnet.tags["kubernetes.io/role/elb"] == "1"]) && alltrue([for subnet in aws_subnet.private : subnet.tags["kubernetes.io/role/internal-elb"] == "1"])
    error_message = "Without these tags Kubernetes finds no subnet for a load balancer."
  }
}

run "one_nat_gateway_is_enough_where_it_is_cheap" {
  assert {
    condition     = length(aws_nat_gateway.this) == 1 && length(aws_route.private_nat) == 3
    error_message = "All three zones must leave through the one NAT gateway."
  }
}

run "with_nat_per_zone_no_zone_needs_another" {
  variables {
    nat_per_zone = true
  }

  assert {
    condition     = length(aws_nat_gateway.this) == 3 && alltrue([for zone, route in aws_route.private_nat : route.nat_gateway_id == aws_nat_gateway.this[zone].id])
    error_message = "Each zone must leave through a NAT gateway of its own."
  }
}

run "databases_have_no_way_to_the_internet" {
  assert {
    condition     = alltrue([for association in aws_route_table_association.database : association.route_table_id == aws_route_table.database.id])
    error_message = "The databases' subnets must use the table without routes."
  }

  assert {
    condition = alltrue([for rule in concat(values(aws_network_acl_rule.database_in), values(aws_network_acl_rule.database_among_themselves), values(aws_network_acl_rule.database_answers)) :
    startswith(rule.cidr_block, "10.20.")])
    error_message = "The databases' ACL must name the VPC's own subnets only."
  }

  assert {
    condition     = toset([for rule in aws_network_acl_rule.database_in : rule.from_port]) == toset([5432, 6379, 9098])
    error_message = "Nodes may reach PostgreSQL, Redis and Kafka in the databases' subnets, and nothing else."
  }

  assert {
    condition     = length(distinct([for rule in values(aws_network_acl_rule.database_in) : rule.rule_number])) == 9
    error_message = "Two rules of the databases' ACL have the same number: the second would fail."
  }
}

run "no_security_group_lets_the_internet_in" {
  assert {
    condition     = alltrue([for rule in aws_vpc_security_group_ingress_rule.endpoints : startswith(rule.cidr_ipv4, "10.20.")])
    error_message = "Endpoints are for nodes only."
  }

  assert {
    condition     = length(aws_default_security_group.closed.ingress) == 0 && length(aws_default_security_group.closed.egress) == 0
    error_message = "The default group must let nothing through: whoever forgets to name a group gets it."
  }
}

run "every_flow_is_recorded_and_encrypted" {
  assert {
    condition     = aws_flow_log.this.traffic_type == "ALL" && aws_cloudwatch_log_group.flow.kms_key_id == var.logs_key_arn && aws_cloudwatch_log_group.flow.retention_in_days == 30
    error_message = "Flow logs must hold all traffic, encrypted, for the days asked for."
  }
}

run "secrets_and_images_come_without_the_internet" {
  assert {
    condition     = length(setsubtract(["secretsmanager", "sts", "ecr.api", "ecr.dkr", "logs"], keys(aws_vpc_endpoint.interface))) == 0 && aws_vpc_endpoint.s3.vpc_endpoint_type == "Gateway"
    error_message = "An endpoint is missing."
  }
}

run "a_public_range_is_refused" {
  command = plan

  variables {
    cidr = "8.8.0.0/16"
  }

  expect_failures = [var.cidr]
}

run "another_size_is_refused" {
  command = plan

  variables {
    cidr = "10.20.0.0/20"
  }

  expect_failures = [var.cidr]
}

run "two_zones_are_refused" {
  command = plan

  variables {
    zones = ["eu-central-1a", "eu-central-1b", "eu-central-1b"]
  }

  expect_failures = [var.zones]
}
