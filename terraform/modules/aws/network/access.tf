# Network ACLs: the second wall, for whole subnets. They keep no state, so answers need rules of their own.

resource "aws_network_acl" "public" {
  vpc_id     = aws_vpc.this.id
  subnet_ids = [for subnet in aws_subnet.public : subnet.id]

  dynamic "ingress" {
    for_each = { 100 = 80, 110 = 443 }

    content {
      rule_no    = ingress.key
      action     = "allow"
      protocol   = "tcp"
      cidr_block = "0.0.0.0/0"
      from_port  = ingress.value
      to_port    = ingress.value
    }
  }

  ingress { # from the nodes, through NAT
    rule_no    = 200
    action     = "allow"
    protocol   = "-1"
    cidr_block = var.cidr
    from_port  = 0
    to_port    = 0
  }

  ingress { # answers from the internet
    rule_no    = 300
    action     = "allow"
    protocol   = "tcp"
    cidr_block = "0.0.0.0/0"
    from_port  = 1024
    to_port    = 65535
  }

  egress {
    rule_no    = 100
    action     = "allow"
    protocol   = "-1"
    cidr_block = "0.0.0.0/0"
    from_port  = 0
    to_port    = 0
  }

  tags = { Name = "${var.name}-public" }
}

resource "aws_network_acl" "private" {
  #checkov:skip=CKV_AWS_231:NAT answers to any port from 1024 on; no node has a public address, and security groups let none in
  vpc_id     = aws_vpc.this.id
  subnet_ids = [for subnet in aws_subnet.private : subnet.id]

  ingress {
    rule_no    = 100
    action     = "allow"
    protocol   = "-1"
    cidr_block = var.cidr
    from_port  = 0
    to_port    = 0
  }

  ingress { # answers from the internet, and clients whose address a network load balancer keeps
    rule_no    = 200
    action     = "allow"
    protocol   = "tcp"
    cidr_block = "0.0.0.0/0"
    from_port  = 1024
    to_port    = 65535
  }

  egress {
    rule_no    = 100
    action     = "allow"
    protocol   = "-1"
    cidr_block = "0.0.0.0/0"
    from_port  = 0
    to_port    = 0
  }

  tags = { Name = "${var.name}-private" }
}

resource "aws_network_acl" "database" {
  vpc_id     = aws_vpc.this.id
  subnet_ids = [for subnet in aws_subnet.database : subnet.id]

  tags = { Name = "${var.name}-database" }
}

# Rules of their own, as twelve blocks inside the ACL would be unreadable in a plan.
resource "aws_network_acl_rule" "database_in" {
  for_each = { for pair in setproduct(keys(local.database_ports), range(3)) : "${pair[0]}-${pair[1]}" => {
    number = 100 + 10 * index(keys(local.database_ports), pair[0]) + pair[1]
    port   = local.database_ports[pair[0]]
    cidr   = values(local.private)[pair[1]]
  } }

  network_acl_id = aws_network_acl.database.id
  rule_number    = each.value.number
  rule_action    = "allow"
  protocol       = "tcp"
  cidr_block     = each.value.cidr
  from_port      = each.value.port
  to_port        = each.value.port
}

# Replication: brokers, standbys and replicas talk to each other.
resource "aws_network_acl_rule" "database_among_themselves" {
  for_each = { for pair in setproduct(["in", "out"], range(3)) : "${pair[0]}-${pair[1]}" => {
    egress = pair[0] == "out"
    number = 200 + pair[1]
    cidr   = values(local.database)[pair[1]]
  } }

  network_acl_id = aws_network_acl.database.id
  egress         = each.value.egress
  rule_number    = each.value.number
  rule_action    = "allow"
  protocol       = "-1"
  cidr_block     = each.value.cidr
}

resource "aws_network_acl_rule" "database_answers" {
  for_each = { for i, cidr in values(local.private) : tostring(i) => { number = 300 + i, cidr = cidr } }

  network_acl_id = aws_network_acl.database.id
  egress         = true
  rule_number    = each.value.number
  rule_action    = "allow"
  protocol       = "tcp"
  cidr_block     = each.value.cidr
  from_port      = 1024
  to_port        = 65535
}

# Endpoints: images, secrets and logs reach AWS without the internet, and without NAT's price per gigabyte.

resource "aws_security_group" "endpoints" {
  name        = "${var.name}-endpoints"
  description = "HTTPS from the VPC to the interface endpoints"
  vpc_id      = aws_vpc.this.id

  tags = { Name = "${var.name}-endpoints" }
}

resource "aws_vpc_security_group_ingress_rule" "endpoints" {
  for_each = local.private

  security_group_id = aws_security_group.endpoints.id
  description       = "HTTPS from the nodes in ${each.key}"
  cidr_ipv4         = each.value
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_vpc_endpoint" "s3" {
  vpc_id            = aws_vpc.this.id
  service_name      = "com.amazonaws.${data.aws_region.current.name}.s3"
  vpc_endpoint_type = "Gateway"
  route_table_ids   = [for table in aws_route_table.private : table.id]

  tags = { Name = "${var.name}-s3" }
}

resource "aws_vpc_endpoint" "interface" {
  for_each = var.interface_endpoints

  vpc_id              = aws_vpc.this.id
  service_name        = "com.amazonaws.${data.aws_region.current.name}.${each.key}"
  vpc_endpoint_type   = "Interface"
  private_dns_enabled = true
  subnet_ids          = [for subnet in aws_subnet.private : subnet.id]
  security_group_ids  = [aws_security_group.endpoints.id]

  tags = { Name = "${var.name}-${each.key}" }
}

# Flow logs: who talked to whom, also when it was refused.

resource "aws_cloudwatch_log_group" "flow" {
  name              = "/isa/${var.name}/vpc-flow"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.logs_key_arn
}

resource "aws_iam_role" "flow" {
  name = "${var.name}-vpc-flow"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "vpc-flow-logs.amazonaws.com" }
      Action    = "sts:AssumeRole"
    }]
  })
}

resource "aws_iam_role_policy" "flow" {
  name = "write"
  role = aws_iam_role.flow.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect   = "Allow"
      Action   = ["logs:CreateLogStream", "logs:PutLogEvents", "logs:DescribeLogStreams"]
      Resource = ["${aws_cloudwatch_log_group.flow.arn}:*"]
    }]
  })
}

resource "aws_flow_log" "this" {
  vpc_id          = aws_vpc.this.id
  traffic_type    = "ALL"
  log_destination = aws_cloudwatch_log_group.flow.arn
  iam_role_arn    = aws_iam_role.flow.arn

  tags = { Name = var.name }
}
