# IAM roles of pods. Those of the contract trust a service account's token (the charts annotate the account); those that only AWS
# needs are Pod Identities, which no chart has to know.

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}
data "aws_region" "current" {}

locals {
  region  = data.aws_region.current.name
  account = data.aws_caller_identity.current.account_id
  secrets = "arn:${data.aws_partition.current.partition}:secretsmanager:${local.region}:${local.account}:secret:${var.secret_prefix}*"
  zone    = "arn:${data.aws_partition.current.partition}:route53:::hostedzone/${var.dns_zone}"

  # MSK's names of topics and groups: the cluster's ARN with another noun.
  topics = "${replace(var.kafka_arn, ":cluster/", ":topic/")}/*"
  groups = "${replace(var.kafka_arn, ":cluster/", ":group/")}/*"

  annotated = {
    services         = { accounts = ["isa-cloud:*"], statements = local.kafka_of_services }
    external-secrets = { accounts = ["external-secrets:external-secrets"], statements = local.secrets_of_external_secrets }
    cert-manager     = { accounts = ["cert-manager:cert-manager"], statements = local.dns_of_cert_manager }
    external-dns     = { accounts = ["external-dns:external-dns"], statements = local.dns_of_external_dns }
    loki             = { accounts = ["isa-data:loki"], statements = local.objects_of["loki"] }
    backup           = { accounts = ["isa-data:backup"], statements = concat(local.objects_of["backup"], local.kafka_of_backup) }
  }

  associated = {
    topics        = { namespace = "isa-cloud", service_account = "topics", statements = local.kafka_of_topics }
    keda          = { namespace = "keda", service_account = "keda-operator", statements = local.kafka_of_keda }
    load-balancer = { namespace = "kube-system", service_account = "aws-load-balancer-controller", statements = local.load_balancers }
  }

  kafka_of_services = [
    { Effect = "Allow", Action = ["kafka-cluster:Connect", "kafka-cluster:DescribeCluster", "kafka-cluster:WriteDataIdempotently"], Resource = [var.kafka_arn] },
    { Effect = "Allow", Action = ["kafka-cluster:DescribeTopic", "kafka-cluster:ReadData", "kafka-cluster:WriteData"], Resource = [local.topics] },
    { Effect = "Allow", Action = ["kafka-cluster:DescribeGroup", "kafka-cluster:AlterGroup"], Resource = [local.groups] },
  ]

  # Creates and configures, never deletes: a topic is deleted by a person.
  kafka_of_topics = [
    { Effect = "Allow", Action = ["kafka-cluster:Connect", "kafka-cluster:DescribeCluster"], Resource = [var.kafka_arn] },
    { Effect = "Allow", Action = [
      "kafka-cluster:CreateTopic", "kafka-cluster:DescribeTopic", "kafka-cluster:AlterTopic",
      "kafka-cluster:DescribeTopicDynamicConfiguration", "kafka-cluster:AlterTopicDynamicConfiguration",
    ], Resource = [local.topics] },
  ]

  kafka_of_keda = [
    { Effect = "Allow", Action = ["kafka-cluster:Connect", "kafka-cluster:DescribeCluster"], Resource = [var.kafka_arn] },
    { Effect = "Allow", Action = ["kafka-cluster:DescribeTopic"], Resource = [local.topics] },
    { Effect = "Allow", Action = ["kafka-cluster:DescribeGroup"], Resource = [local.groups] },
  ]

  kafka_of_backup = [
    { Effect = "Allow", Action = ["kafka-cluster:Connect", "kafka-cluster:DescribeCluster"], Resource = [var.kafka_arn] },
    { Effect = "Allow", Action = ["kafka-cluster:DescribeTopic", "kafka-cluster:DescribeTopicDynamicConfiguration", "kafka-cluster:ReadData"], Resource = [local.topics] },
    { Effect = "Allow", Action = ["kafka-cluster:DescribeGroup"], Resource = [local.groups] },
  ]

  objects_of = { for name, bucket in { loki = var.loki_bucket_arn, backup = var.backup_bucket_arn } : name => [
    { Effect = "Allow", Action = ["s3:ListBucket", "s3:GetBucketLocation"], Resource = [bucket] },
    { Effect = "Allow", Action = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"], Resource = ["${bucket}/*"] },
    { Effect = "Allow", Action = ["kms:Decrypt", "kms:GenerateDataKey"], Resource = [var.data_key_arn], Condition = { StringEquals = { "kms:ViaService" = "s3.${local.region}.amazonaws.com" } } },
  ] }

  secrets_of_external_secrets = [
    { Effect = "Allow", Action = ["secretsmanager:GetSecretValue", "secretsmanager:DescribeSecret"], Resource = [local.secrets, var.postgres_admin_secret_arn] },
    { Effect = "Allow", Action = ["kms:Decrypt"], Resource = [var.data_key_arn], Condition = { StringEquals = { "kms:ViaService" = "secretsmanager.${local.region}.amazonaws.com" } } },
  ]

  dns_of_cert_manager = [
    { Effect = "Allow", Action = ["route53:ChangeResourceRecordSets"], Resource = [local.zone], Condition = {
      "ForAllValues:StringEquals" = { "route53:ChangeResourceRecordSetsRecordTypes" = ["TXT"] }
      "ForAllValues:StringLike"   = { "route53:ChangeResourceRecordSetsNormalizedRecordNames" = ["_acme-challenge.*"] }
    } },
    { Effect = "Allow", Action = ["route53:ListResourceRecordSets"], Resource = [local.zone] },
    { Effect = "Allow", Action = ["route53:GetChange"], Resource = ["arn:${data.aws_partition.current.partition}:route53:::change/*"] },
    { Effect = "Allow", Action = ["route53:ListHostedZonesByName"], Resource = ["*"] }, # knows no resource
  ]

  dns_of_external_dns = [
    { Effect = "Allow", Action = ["route53:ChangeResourceRecordSets", "route53:ListResourceRecordSets", "route53:ListTagsForResources"], Resource = [local.zone] },
    { Effect = "Allow", Action = ["route53:ListHostedZones"], Resource = ["*"] }, # knows no resource
  ]

  # One type for both kinds, so that one resource makes them all.
  statements = merge(
    { for name, role in local.annotated : name => jsonencode({ Version = "2012-10-17", Statement = role.statements }) },
    { for name, role in local.associated : name => jsonencode({ Version = "2012-10-17", Statement = role.statements }) },
  )

  trusts = merge(
    { for name, role in local.annotated : name => jsonencode({
      Version = "2012-10-17"
      Statement = [{
        Effect    = "Allow"
        Principal = { Federated = var.oidc_provider_arn }
        Action    = "sts:AssumeRoleWithWebIdentity"
        Condition = {
          StringEquals = { "${var.oidc_issuer}:aud" = "sts.amazonaws.com" }
          StringLike   = { "${var.oidc_issuer}:sub" = [for account in role.accounts : "system:serviceaccount:${account}"] }
        }
      }]
    }) },
    { for name, role in local.associated : name => jsonencode({
      Version = "2012-10-17"
      Statement = [{
        Effect    = "Allow"
        Principal = { Service = "pods.eks.amazonaws.com" }
        Action    = ["sts:AssumeRole", "sts:TagSession"]
        Condition = { StringEquals = {
          "aws:RequestTag/eks-cluster-arn"            = var.cluster_arn
          "aws:RequestTag/kubernetes-namespace"       = role.namespace
          "aws:RequestTag/kubernetes-service-account" = role.service_account
        } }
      }]
    }) },
  )
}

resource "aws_iam_role" "this" {
  for_each = local.trusts

  name               = "${var.name}-${each.key}"
  assume_role_policy = each.value
}

resource "aws_iam_role_policy" "this" {
  for_each = local.statements

  name   = "work"
  role   = aws_iam_role.this[each.key].id
  policy = each.value
}

resource "aws_eks_pod_identity_association" "this" {
  for_each = local.associated

  cluster_name    = var.cluster_name
  namespace       = each.value.namespace
  service_account = each.value.service_account
  role_arn        = aws_iam_role.this[each.key].arn
}
