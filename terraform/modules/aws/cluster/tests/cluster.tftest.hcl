mock_provider "aws" {
  source = "../../../tests/mocks/aws"
}

variables {
  name                = "isa-dev"
  private_subnet_ids  = ["subnet-a", "subnet-b", "subnet-c"]
  public_access_cidrs = ["198.51.100.0/24"]
  administrators      = { platform = "arn:aws:iam::111122223333:role/platform-admin" }
  log_retention_days  = 30
  cluster_key_arn     = "arn:aws:kms:eu-central-1:111122223333:key/cluster"
  logs_key_arn        = "arn:aws:kms:eu-central-1:111122223333:key/logs"
  node_tags           = { "isa-cloud.io/environment" = "dev" }

  node_groups = {
    system = { instance_types = ["m6i.large"], min = 2, max = 3 }
    work   = { instance_types = ["m6i.large", "m6a.large"], min = 1, max = 6, spot = true }
  }
}

run "secrets_are_encrypted_with_our_key" {
  assert {
    condition     = aws_eks_cluster.this.encryption_config[0].provider[0].key_arn == var.cluster_key_arn && contains(aws_eks_cluster.this.encryption_config[0].resources, "secrets")
    error_message = "Kubernetes secrets must be encrypted with the cluster's key."
  }
}

run "every_log_of_the_control_plane_is_kept" {
  assert {
    condition     = aws_eks_cluster.this.enabled_cluster_log_types == toset(["api", "audit", "authenticator", "controllerManager", "scheduler"])
    error_message = "All five logs are needed, the audit log above all."
  }

  assert {
    condition     = aws_cloudwatch_log_group.control_plane.name == "/aws/eks/isa-dev/cluster" && aws_cloudwatch_log_group.control_plane.retention_in_days == 30
    error_message = "EKS writes to a group of this name; without ours it makes one that keeps everything for ever."
  }
}

run "the_api_is_open_to_named_networks_only" {
  assert {
    condition     = aws_eks_cluster.this.vpc_config[0].endpoint_private_access && aws_eks_cluster.this.vpc_config[0].public_access_cidrs == toset(["198.51.100.0/24"])
    error_message = "Nodes must reach the API inside the VPC, and from outside only the networks that were named."
  }
}

run "without_named_networks_the_api_is_private" {
  variables {
    public_access_cidrs = []
  }

  assert {
    condition     = !aws_eks_cluster.this.vpc_config[0].endpoint_public_access
    error_message = "No network was named, so the API must not be reachable from outside."
  }
}

run "who_runs_terraform_is_no_administrator_by_that" {
  assert {
    condition     = !aws_eks_cluster.this.access_config[0].bootstrap_cluster_creator_admin_permissions && aws_eks_cluster.this.access_config[0].authentication_mode == "API"
    error_message = "Administrators are those of var.administrators, by access entries."
  }

  assert {
    condition     = [for association in aws_eks_access_policy_association.administrator : association.principal_arn] == ["arn:aws:iam::111122223333:role/platform-admin"]
    error_message = "The named role must be administrator."
  }
}

run "a_pod_cannot_become_its_node" {
  assert {
    condition     = alltrue([for template in aws_launch_template.node : template.metadata_options[0].http_tokens == "required" && template.metadata_options[0].http_put_response_hop_limit == 1])
    error_message = "Instance metadata needs a token (IMDSv2) and must end at the node (one hop)."
  }
}

run "node_disks_are_encrypted" {
  assert {
    condition     = alltrue([for template in aws_launch_template.node : tobool(template.block_device_mappings[0].ebs[0].encrypted)])
    error_message = "Nodes' disks hold images and emptyDirs: they must be encrypted."
  }
}

run "operators_are_never_on_spot_and_groups_have_bounds" {
  assert {
    condition     = aws_eks_node_group.this["system"].capacity_type == "ON_DEMAND" && aws_eks_node_group.this["work"].capacity_type == "SPOT"
    error_message = "`system` is on demand, `work` is as it was asked for."
  }

  assert {
    condition     = aws_eks_node_group.this["work"].scaling_config[0].min_size == 1 && aws_eks_node_group.this["work"].scaling_config[0].max_size == 6
    error_message = "The cluster autoscaler moves between the bounds that were given."
  }
}

run "network_policies_are_enforced" {
  assert {
    condition     = jsondecode(aws_eks_addon.before_nodes["vpc-cni"].configuration_values).enableNetworkPolicy == "true"
    error_message = "Without this setting NetworkPolicies are accepted and do nothing."
  }
}

run "every_addon_is_there" {
  assert {
    condition     = toset(concat(keys(aws_eks_addon.before_nodes), keys(aws_eks_addon.after_nodes))) == toset(["vpc-cni", "kube-proxy", "eks-pod-identity-agent", "coredns", "aws-ebs-csi-driver", "metrics-server"])
    error_message = "The self-managed add-ons are switched off, so all of these are needed."
  }

  assert {
    condition     = jsondecode(aws_eks_addon.after_nodes["aws-ebs-csi-driver"].configuration_values).controller.extraVolumeTags == { "isa-cloud.io/backup" = "daily", "isa-cloud.io/environment" = "dev" }
    error_message = "Volumes of pods need both tags: AWS Backup finds them by these."
  }
}

run "the_autoscaler_changes_only_its_own_groups" {
  assert {
    condition = alltrue([for statement in jsondecode(aws_iam_role_policy.cluster_autoscaler.policy).Statement :
      try(statement.Condition.StringEquals["aws:ResourceTag/k8s.io/cluster-autoscaler/isa-dev"], "") == "owned"
    if contains(flatten([statement.Action]), "autoscaling:SetDesiredCapacity") || contains(flatten([statement.Action]), "autoscaling:TerminateInstanceInAutoScalingGroup")])
    error_message = "Scaling must be limited to the groups that carry this cluster's tag."
  }
}

run "pod_identities_are_bound_to_one_account_of_this_cluster" {
  assert {
    condition = alltrue([for role in aws_iam_role.pod :
    length(setintersection(keys(jsondecode(role.assume_role_policy).Statement[0].Condition.StringEquals), ["aws:RequestTag/eks-cluster-arn", "aws:RequestTag/kubernetes-namespace", "aws:RequestTag/kubernetes-service-account"])) == 3])
    error_message = "A role must say which cluster, namespace and service account it is for."
  }

  assert {
    condition     = !contains([for attachment in aws_iam_role_policy_attachment.node : attachment.policy_arn], "arn:aws:iam::aws:policy/AmazonEKS_CNI_Policy")
    error_message = "The network plug-in has an identity of its own; on the node's role every pod on the host's network would have it."
  }
}

run "the_whole_internet_is_refused" {
  command = plan

  variables {
    public_access_cidrs = ["0.0.0.0/0"]
  }

  expect_failures = [var.public_access_cidrs]
}

run "an_old_kubernetes_is_refused" {
  command = plan

  variables {
    kubernetes_version = "1.28"
  }

  expect_failures = [var.kubernetes_version]
}

run "a_user_as_administrator_is_refused" {
  command = plan

  variables {
    administrators = { someone = "arn:aws:iam::111122223333:user/someone" }
  }

  expect_failures = [var.administrators]
}

run "nobody_as_administrator_is_refused" {
  command = plan

  variables {
    administrators = {}
  }

  expect_failures = [var.administrators]
}

run "operators_on_spot_are_refused" {
  command = plan

  variables {
    node_groups = { system = { instance_types = ["m6i.large"], min = 2, max = 3, spot = true } }
  }

  expect_failures = [var.node_groups]
}

run "one_zone_is_refused" {
  command = plan

  variables {
    private_subnet_ids = ["subnet-a"]
  }

  expect_failures = [var.private_subnet_ids]
}
