mock_provider "aws" {
  source = "../../../tests/mocks/aws"
}

variables {
  name                      = "isa-prod"
  cluster_name              = "isa-prod"
  cluster_arn               = "arn:aws:eks:eu-central-1:111122223333:cluster/isa-prod"
  oidc_provider_arn         = "arn:aws:iam::111122223333:oidc-provider/oidc.eks.eu-central-1.amazonaws.com/id/A"
  oidc_issuer               = "oidc.eks.eu-central-1.amazonaws.com/id/A"
  kafka_arn                 = "arn:aws:kafka:eu-central-1:111122223333:cluster/isa-prod/11111111-2222-3333-4444-555555555555-1"
  loki_bucket_arn           = "arn:aws:s3:::isa-prod-loki"
  backup_bucket_arn         = "arn:aws:s3:::isa-prod-backups"
  secret_prefix             = "isa-prod-"
  postgres_admin_secret_arn = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:rds!db-1-AbCdEf"
  dns_zone                  = "Z1"
  waf_arn                   = "arn:aws:wafv2:eu-central-1:111122223333:regional/webacl/isa-prod/1"
  data_key_arn              = "arn:aws:kms:eu-central-1:111122223333:key/data"
}

run "each_identity_of_the_contract_has_a_role" {
  assert {
    condition     = toset(keys(output.role_arns)) == toset(["services", "external-secrets", "cert-manager", "external-dns", "loki", "backup"])
    error_message = "terraform/contract.yaml names these identities."
  }
}

run "a_role_trusts_named_accounts_of_this_cluster" {
  assert {
    condition = alltrue([for name in keys(output.role_arns) :
      jsondecode(aws_iam_role.this[name].assume_role_policy).Statement[0].Principal.Federated == var.oidc_provider_arn &&
    jsondecode(aws_iam_role.this[name].assume_role_policy).Statement[0].Condition.StringEquals["${var.oidc_issuer}:aud"] == "sts.amazonaws.com"])
    error_message = "A token must be this cluster's, and made for AWS."
  }

  assert {
    condition = { for name in keys(output.role_arns) : name => jsondecode(aws_iam_role.this[name].assume_role_policy).Statement[0].Condition.StringLike["${var.oidc_issuer}:sub"] } == {
      services         = ["system:serviceaccount:isa-cloud:*"]
      external-secrets = ["system:serviceaccount:external-secrets:external-secrets"]
      cert-manager     = ["system:serviceaccount:cert-manager:cert-manager"]
      external-dns     = ["system:serviceaccount:external-dns:external-dns"]
      loki             = ["system:serviceaccount:isa-data:loki"]
      backup           = ["system:serviceaccount:isa-data:backup"]
    }
    error_message = "A role is for the service accounts that terraform/README.md lists, and for no others."
  }
}

run "what_only_aws_needs_is_bound_without_a_chart" {
  assert {
    condition = { for name, association in aws_eks_pod_identity_association.this : name => "${association.namespace}:${association.service_account}" } == {
      topics        = "isa-cloud:topics"
      keda          = "keda:keda-operator"
      load-balancer = "kube-system:aws-load-balancer-controller"
    }
    error_message = "A Pod Identity is bound to the account that terraform/README.md lists."
  }

  assert {
    condition     = jsondecode(aws_iam_role.this["keda"].assume_role_policy).Statement[0].Condition.StringEquals["aws:RequestTag/eks-cluster-arn"] == var.cluster_arn
    error_message = "A Pod Identity must be this cluster's."
  }
}

run "services_read_and_write_topics_of_this_cluster_only" {
  assert {
    condition = alltrue(flatten([for name in ["services", "topics", "keda"] : [for statement in jsondecode(aws_iam_role_policy.this[name].policy).Statement : [for resource in statement.Resource :
      contains([
        "arn:aws:kafka:eu-central-1:111122223333:cluster/isa-prod/11111111-2222-3333-4444-555555555555-1",
        "arn:aws:kafka:eu-central-1:111122223333:topic/isa-prod/11111111-2222-3333-4444-555555555555-1/*",
        "arn:aws:kafka:eu-central-1:111122223333:group/isa-prod/11111111-2222-3333-4444-555555555555-1/*",
    ], resource)]]]))
    error_message = "Kafka's permissions must name this cluster, its topics and its groups."
  }

  assert {
    condition     = length(setintersection(flatten([for statement in jsondecode(aws_iam_role_policy.this["services"].policy).Statement : statement.Action]), ["kafka-cluster:CreateTopic", "kafka-cluster:AlterTopic", "kafka-cluster:DeleteTopic", "kafka-cluster:*"])) == 0
    error_message = "Services use topics; they neither make nor change them."
  }

  assert {
    condition     = length(setintersection(flatten([for statement in jsondecode(aws_iam_role_policy.this["keda"].policy).Statement : statement.Action]), ["kafka-cluster:ReadData", "kafka-cluster:WriteData", "kafka-cluster:AlterGroup"])) == 0
    error_message = "KEDA looks at lag; it reads no record."
  }

  assert {
    condition     = !strcontains(aws_iam_role_policy.this["topics"].policy, "DeleteTopic")
    error_message = "The topics job must not be able to delete a topic."
  }
}

run "external_secrets_reads_this_environment_only" {
  assert {
    condition = jsondecode(aws_iam_role_policy.this["external-secrets"].policy).Statement[0].Resource == [
      "arn:aws:secretsmanager:eu-central-1:111122223333:secret:isa-prod-*",
      "arn:aws:secretsmanager:eu-central-1:111122223333:secret:rds!db-1-AbCdEf",
    ]
    error_message = "Entries with the environment's prefix and RDS's own entry, nothing else of the account."
  }
}

run "cert_manager_writes_challenges_and_nothing_else" {
  assert {
    condition     = jsondecode(aws_iam_role_policy.this["cert-manager"].policy).Statement[0].Condition["ForAllValues:StringLike"]["route53:ChangeResourceRecordSetsNormalizedRecordNames"] == ["_acme-challenge.*"]
    error_message = "cert-manager may write _acme-challenge records of the zone only."
  }
}

run "no_policy_allows_everything_everywhere" {
  assert {
    condition = alltrue(flatten([for policy in aws_iam_role_policy.this : [for statement in jsondecode(policy.policy).Statement :
      !contains(statement.Action, "*") && (!contains(statement.Resource, "*") || alltrue([for action in statement.Action :
    can(regex(":(List|Describe|Get)", action))]))]]))
    error_message = "A star as resource is only for actions that look and know no resource."
  }

  assert {
    condition     = alltrue([for policy in aws_iam_role_policy.this : length(policy.policy) < 10240])
    error_message = "IAM takes inline policies of 10,240 characters at most."
  }
}

run "an_issuer_with_its_scheme_is_refused" {
  command = plan

  variables {
    oidc_issuer = "https://oidc.eks.eu-central-1.amazonaws.com/id/A"
  }

  expect_failures = [var.oidc_issuer]
}

run "what_is_no_kafka_cluster_is_refused" {
  command = plan

  variables {
    kafka_arn = "*"
  }

  expect_failures = [var.kafka_arn]
}
