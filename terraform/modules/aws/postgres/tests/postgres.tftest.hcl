mock_provider "aws" {
  source = "../../../tests/mocks/aws"
}

variables {
  name                      = "isa-prod"
  instance_class            = "db.m7g.large"
  multi_az                  = true
  storage_gib               = 100
  max_storage_gib           = 1000
  backup_days               = 35
  is_protected              = true
  log_retention_days        = 365
  vpc_id                    = "vpc-1"
  subnet_ids                = ["subnet-a", "subnet-b", "subnet-c"]
  cluster_security_group_id = "sg-cluster"
  data_key_arn              = "arn:aws:kms:eu-central-1:111122223333:key/data"
  logs_key_arn              = "arn:aws:kms:eu-central-1:111122223333:key/logs"
}

run "everything_stored_is_encrypted_with_our_key" {
  assert {
    condition     = aws_db_instance.this.storage_encrypted && aws_db_instance.this.kms_key_id == var.data_key_arn && aws_db_instance.this.performance_insights_kms_key_id == var.data_key_arn && aws_db_instance.this.master_user_secret_kms_key_id == var.data_key_arn
    error_message = "Disk, insights and the administrator's password must be encrypted with the stores' key."
  }
}

run "terraform_knows_no_password" {
  assert {
    condition     = aws_db_instance.this.manage_master_user_password && aws_db_instance.this.password == null
    error_message = "RDS must make, keep and rotate the administrator's password: one given here would be in the state."
  }
}

run "plain_text_is_refused" {
  assert {
    condition     = one([for parameter in aws_db_parameter_group.this.parameter : parameter.value if parameter.name == "rds.force_ssl"]) == "1"
    error_message = "rds.force_ssl must be on."
  }
}

run "the_server_has_what_the_adapter_relies_on" {
  assert {
    condition = { for parameter in aws_db_parameter_group.this.parameter : parameter.name => parameter.value if contains(["temp_file_limit", "max_locks_per_transaction", "idle_in_transaction_session_timeout", "jit"], parameter.name) } == {
      temp_file_limit                     = "1048576"
      max_locks_per_transaction           = "256"
      idle_in_transaction_session_timeout = "60000"
      jit                                 = "0"
    }
    error_message = "These are the settings that docker-compose.yml gives its PostgreSQL; both must be the same."
  }

  assert {
    condition     = one([for parameter in aws_db_parameter_group.this.parameter : parameter.apply_method if parameter.name == "max_locks_per_transaction"]) == "pending-reboot"
    error_message = "max_locks_per_transaction is read at the start only; RDS refuses to apply it at once."
  }
}

run "any_second_of_35_days_can_be_restored" {
  assert {
    condition     = aws_db_instance.this.backup_retention_period == 35 && !aws_db_instance.this.delete_automated_backups
    error_message = "Backups must be kept for 35 days, and outlive the instance."
  }

  assert {
    condition     = aws_db_instance.this.backup_window == "01:30-02:30" && aws_db_instance.this.maintenance_window == "sun:03:00-sun:04:00"
    error_message = "The backup must be done before maintenance begins: RDS refuses windows that overlap."
  }

  assert {
    condition     = aws_db_instance.this.tags["isa-cloud.io/backup"] == "daily"
    error_message = "AWS Backup finds the instance by this tag."
  }
}

run "a_zone_may_be_lost_and_nobody_deletes_it_by_mistake" {
  assert {
    condition     = aws_db_instance.this.multi_az && aws_db_instance.this.deletion_protection && !aws_db_instance.this.skip_final_snapshot && aws_db_instance.this.final_snapshot_identifier == "isa-prod-final"
    error_message = "A protected instance has a standby, refuses deletion and leaves a last snapshot."
  }
}

run "only_the_cluster_connects" {
  assert {
    condition     = !aws_db_instance.this.publicly_accessible && aws_vpc_security_group_ingress_rule.cluster.referenced_security_group_id == "sg-cluster" && aws_vpc_security_group_ingress_rule.cluster.cidr_ipv4 == null && aws_vpc_security_group_ingress_rule.cluster.from_port == 5432 && aws_vpc_security_group_ingress_rule.cluster.to_port == 5432
    error_message = "Only the cluster's nodes may connect, and only to 5432."
  }
}

run "dev_can_be_thrown_away" {
  variables {
    is_protected = false
    multi_az     = false
    backup_days  = 7
  }

  assert {
    condition     = !aws_db_instance.this.deletion_protection && aws_db_instance.this.skip_final_snapshot && aws_db_instance.this.storage_encrypted
    error_message = "An unprotected instance is destroyed without ado; it is encrypted all the same."
  }
}

run "no_backups_is_refused" {
  command = plan

  variables {
    backup_days = 0
  }

  expect_failures = [var.backup_days]
}

run "an_untested_version_is_refused" {
  command = plan

  variables {
    engine_version = "14.9"
  }

  expect_failures = [var.engine_version]
}

run "a_limit_that_rds_refuses_is_refused_before" {
  command = plan

  variables {
    max_storage_gib = 110
  }

  expect_failures = [var.max_storage_gib]
}

run "a_tiny_instance_is_refused" {
  command = plan

  variables {
    instance_class = "db.t4g.micro"
  }

  expect_failures = [var.instance_class]
}

run "a_disk_that_rds_does_not_make_is_refused" {
  command = plan

  variables {
    storage_gib = 5
  }

  expect_failures = [var.storage_gib]
}
