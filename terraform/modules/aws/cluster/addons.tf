# Add-ons of EKS itself, at the version that EKS recommends for this Kubernetes unless one is pinned.

locals {
  before_nodes = {
    "vpc-cni" = {
      enableNetworkPolicy = "true" # else NetworkPolicies are accepted and do nothing
      env                 = { ENABLE_PREFIX_DELEGATION = "true", WARM_PREFIX_TARGET = "1" }
    }
    "kube-proxy"             = {}
    "eks-pod-identity-agent" = {}
  }

  after_nodes = {
    "coredns" = { autoScaling = { enabled = true, minReplicas = 2, maxReplicas = 10 } }
    "aws-ebs-csi-driver" = {
      defaultStorageClass = { enabled = false }                                                             # the charts bring theirs
      controller          = { extraVolumeTags = merge(var.node_tags, { "isa-cloud.io/backup" = "daily" }) } # AWS Backup finds them by it
    }
    "metrics-server" = { replicas = 2 }
  }

  # Pod Identity: who of kube-system and keda acts in AWS. Nothing of it has to be said in a chart.
  pod_identities = {
    "vpc-cni"            = { namespace = "kube-system", service_account = "aws-node", managed = "AmazonEKS_CNI_Policy" }
    "ebs-csi"            = { namespace = "kube-system", service_account = "ebs-csi-controller-sa", managed = "service-role/AmazonEBSCSIDriverPolicy" }
    "cluster-autoscaler" = { namespace = "kube-system", service_account = "cluster-autoscaler", managed = null }
  }
}

resource "aws_eks_addon" "before_nodes" {
  for_each = local.before_nodes

  cluster_name                = aws_eks_cluster.this.name
  addon_name                  = each.key
  addon_version               = lookup(var.addon_versions, each.key, null)
  configuration_values        = length(each.value) > 0 ? jsonencode(each.value) : null
  resolve_conflicts_on_create = "OVERWRITE"
  resolve_conflicts_on_update = "OVERWRITE"

  depends_on = [aws_eks_pod_identity_association.this]
}

resource "aws_eks_addon" "after_nodes" {
  for_each = local.after_nodes

  cluster_name                = aws_eks_cluster.this.name
  addon_name                  = each.key
  addon_version               = lookup(var.addon_versions, each.key, null)
  configuration_values        = jsonencode(each.value)
  resolve_conflicts_on_create = "OVERWRITE"
  resolve_conflicts_on_update = "OVERWRITE"

  depends_on = [aws_eks_node_group.this, aws_eks_pod_identity_association.this]
}

resource "aws_iam_role" "pod" {
  for_each = local.pod_identities

  name = "${var.name}-${each.key}"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "pods.eks.amazonaws.com" }
      Action    = ["sts:AssumeRole", "sts:TagSession"]
      Condition = { StringEquals = {
        "aws:RequestTag/eks-cluster-arn"            = aws_eks_cluster.this.arn
        "aws:RequestTag/kubernetes-namespace"       = each.value.namespace
        "aws:RequestTag/kubernetes-service-account" = each.value.service_account
      } }
    }]
  })
}

resource "aws_iam_role_policy_attachment" "pod" {
  for_each = { for name, identity in local.pod_identities : name => identity if identity.managed != null }

  role       = aws_iam_role.pod[each.key].name
  policy_arn = "${local.policies}/${each.value.managed}"
}

resource "aws_eks_pod_identity_association" "this" {
  for_each = local.pod_identities

  cluster_name    = aws_eks_cluster.this.name
  namespace       = each.value.namespace
  service_account = each.value.service_account
  role_arn        = aws_iam_role.pod[each.key].arn
}

# EKS tags the groups of its node groups with k8s.io/cluster-autoscaler/<cluster>, which is what the autoscaler looks for
# and the only thing that it may change.
resource "aws_iam_role_policy" "cluster_autoscaler" {
  name = "scale"
  role = aws_iam_role.pod["cluster-autoscaler"].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid    = "Look"
        Effect = "Allow"
        Action = [
          "autoscaling:DescribeAutoScalingGroups",
          "autoscaling:DescribeAutoScalingInstances",
          "autoscaling:DescribeLaunchConfigurations",
          "autoscaling:DescribeScalingActivities",
          "autoscaling:DescribeTags",
          "ec2:DescribeImages",
          "ec2:DescribeInstanceTypes",
          "ec2:DescribeLaunchTemplateVersions",
          "ec2:GetInstanceTypesFromInstanceRequirements",
        ]
        Resource = "*" # these actions know no resource
      },
      {
        Sid      = "LookAtItsNodeGroups"
        Effect   = "Allow"
        Action   = "eks:DescribeNodegroup"
        Resource = "${replace(aws_eks_cluster.this.arn, ":cluster/", ":nodegroup/")}/*/*"
      },
      {
        Sid       = "ScaleItsOwnGroups"
        Effect    = "Allow"
        Action    = ["autoscaling:SetDesiredCapacity", "autoscaling:TerminateInstanceInAutoScalingGroup"]
        Resource  = "arn:${data.aws_partition.current.partition}:autoscaling:*:*:autoScalingGroup:*:autoScalingGroupName/*"
        Condition = { StringEquals = { "aws:ResourceTag/k8s.io/cluster-autoscaler/${var.name}" = "owned" } }
      },
    ]
  })
}
