# What the AWS Load Balancer Controller may do, when the edge is an application load balancer with the web ACL on it. It changes only
# what carries its cluster's tag, and can make nothing without it.

locals {
  of_cluster = { "aws:ResourceTag/elbv2.k8s.aws/cluster" = var.cluster_name }
  with_tag   = { "aws:RequestTag/elbv2.k8s.aws/cluster" = var.cluster_name }
  balancers  = "arn:${data.aws_partition.current.partition}:elasticloadbalancing:${local.region}:${local.account}"
  ec2        = "arn:${data.aws_partition.current.partition}:ec2:${local.region}:${local.account}"

  load_balancers = [
    {
      Sid    = "Look"
      Effect = "Allow"
      Action = [
        "acm:DescribeCertificate", "acm:ListCertificates",
        "ec2:DescribeAccountAttributes", "ec2:DescribeAddresses", "ec2:DescribeAvailabilityZones", "ec2:DescribeCoipPools",
        "ec2:DescribeInstances", "ec2:DescribeInternetGateways", "ec2:DescribeIpamPools", "ec2:DescribeNetworkInterfaces",
        "ec2:DescribeRouteTables", "ec2:DescribeSecurityGroups", "ec2:DescribeSubnets", "ec2:DescribeTags",
        "ec2:DescribeVpcPeeringConnections", "ec2:DescribeVpcs", "ec2:GetCoipPoolUsage", "ec2:GetSecurityGroupsForVpc",
        "elasticloadbalancing:Describe*",
        "wafv2:GetWebACLForResource",
      ]
      Resource = ["*"] # these actions know no resource
    },
    {
      Sid      = "AttachTheWebAcl"
      Effect   = "Allow"
      Action   = ["wafv2:AssociateWebACL", "wafv2:DisassociateWebACL", "wafv2:GetWebACL"]
      Resource = [var.waf_arn, "${local.balancers}:loadbalancer/app/*"]
    },
    {
      Sid       = "MakeTagged"
      Effect    = "Allow"
      Action    = ["elasticloadbalancing:CreateLoadBalancer", "elasticloadbalancing:CreateTargetGroup"]
      Resource  = ["${local.balancers}:loadbalancer/*", "${local.balancers}:targetgroup/*"]
      Condition = { StringEquals = local.with_tag }
    },
    {
      Sid      = "MakeItsParts"
      Effect   = "Allow"
      Action   = ["elasticloadbalancing:CreateListener", "elasticloadbalancing:CreateRule", "elasticloadbalancing:DeleteListener", "elasticloadbalancing:DeleteRule", "elasticloadbalancing:ModifyListener", "elasticloadbalancing:ModifyRule", "elasticloadbalancing:SetRulePriorities", "elasticloadbalancing:AddListenerCertificates", "elasticloadbalancing:RemoveListenerCertificates"]
      Resource = ["${local.balancers}:loadbalancer/*", "${local.balancers}:listener/*", "${local.balancers}:listener-rule/*"]
    },
    {
      Sid       = "ChangeItsOwn"
      Effect    = "Allow"
      Action    = ["elasticloadbalancing:DeleteLoadBalancer", "elasticloadbalancing:DeleteTargetGroup", "elasticloadbalancing:ModifyLoadBalancerAttributes", "elasticloadbalancing:ModifyTargetGroup", "elasticloadbalancing:ModifyTargetGroupAttributes", "elasticloadbalancing:SetIpAddressType", "elasticloadbalancing:SetSecurityGroups", "elasticloadbalancing:SetSubnets", "elasticloadbalancing:SetWebAcl", "elasticloadbalancing:RegisterTargets", "elasticloadbalancing:DeregisterTargets"]
      Resource  = ["${local.balancers}:loadbalancer/*", "${local.balancers}:targetgroup/*"]
      Condition = { StringEquals = local.of_cluster }
    },
    {
      Sid       = "TagWhatItMakes"
      Effect    = "Allow"
      Action    = ["elasticloadbalancing:AddTags"]
      Resource  = ["${local.balancers}:loadbalancer/*", "${local.balancers}:targetgroup/*", "${local.balancers}:listener/*", "${local.balancers}:listener-rule/*"]
      Condition = { StringEquals = { "elasticloadbalancing:CreateAction" = ["CreateLoadBalancer", "CreateTargetGroup", "CreateListener", "CreateRule"] } }
    },
    {
      Sid      = "MakeAGroup"
      Effect   = "Allow"
      Action   = ["ec2:CreateSecurityGroup"]
      Resource = ["${local.ec2}:vpc/*", "${local.ec2}:security-group/*"]
    },
    {
      Sid       = "TagTheGroup"
      Effect    = "Allow"
      Action    = ["ec2:CreateTags"]
      Resource  = ["${local.ec2}:security-group/*"]
      Condition = { StringEquals = merge(local.with_tag, { "ec2:CreateAction" = "CreateSecurityGroup" }) }
    },
    {
      Sid       = "OpenItsOwnGroups"
      Effect    = "Allow"
      Action    = ["ec2:AuthorizeSecurityGroupIngress", "ec2:RevokeSecurityGroupIngress", "ec2:DeleteSecurityGroup"]
      Resource  = ["${local.ec2}:security-group/*"]
      Condition = { StringEquals = local.of_cluster }
    },
    {
      Sid       = "OpenTheNodesToIt"
      Effect    = "Allow"
      Action    = ["ec2:AuthorizeSecurityGroupIngress", "ec2:RevokeSecurityGroupIngress"]
      Resource  = ["${local.ec2}:security-group/*"]
      Condition = { StringEquals = { "aws:ResourceTag/kubernetes.io/cluster/${var.cluster_name}" = "owned" } }
    },
    {
      Sid       = "LetElbHaveItsRole"
      Effect    = "Allow"
      Action    = ["iam:CreateServiceLinkedRole"]
      Resource  = ["arn:${data.aws_partition.current.partition}:iam::${local.account}:role/aws-service-role/elasticloadbalancing.amazonaws.com/*"]
      Condition = { StringEquals = { "iam:AWSServiceName" = "elasticloadbalancing.amazonaws.com" } }
    },
  ]
}
