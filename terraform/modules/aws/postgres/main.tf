# PostgreSQL on RDS. Its administrator's password is made, kept and rotated by RDS: Terraform never sees it.

data "aws_partition" "current" {}

locals {
  major = split(".", var.engine_version)[0]

  # What the rooms and the SQL adapter rely on; the same as in docker-compose.yml, where there is such a line.
  parameters = {
    "rds.force_ssl"                       = { value = "1" }
    "temp_file_limit"                     = { value = "1048576" } # 1 GB in kB: one tenant's sort must not fill the disk
    "idle_in_transaction_session_timeout" = { value = "60000" }
    "jit"                                 = { value = "0" }
    "max_locks_per_transaction"           = { value = "256", reboot = true } # a schema a tenant
    "log_min_duration_statement"          = { value = "1000" }
    "log_statement"                       = { value = "ddl" }
    "log_connections"                     = { value = "1" }
    "log_disconnections"                  = { value = "1" }
  }
}

resource "aws_security_group" "this" {
  name        = "${var.name}-postgres"
  description = "PostgreSQL, for the cluster's nodes"
  vpc_id      = var.vpc_id

  tags = { Name = "${var.name}-postgres" }
}

resource "aws_vpc_security_group_ingress_rule" "cluster" {
  security_group_id            = aws_security_group.this.id
  description                  = "PostgreSQL from the cluster"
  referenced_security_group_id = var.cluster_security_group_id
  ip_protocol                  = "tcp"
  from_port                    = 5432
  to_port                      = 5432
}

resource "aws_db_subnet_group" "this" {
  name       = var.name
  subnet_ids = var.subnet_ids
}

resource "aws_db_parameter_group" "this" {
  name_prefix = "${var.name}-postgres${local.major}-"
  family      = "postgres${local.major}"

  dynamic "parameter" {
    for_each = local.parameters

    content {
      name         = parameter.key
      value        = parameter.value.value
      apply_method = try(parameter.value.reboot, false) ? "pending-reboot" : "immediate"
    }
  }

  lifecycle {
    create_before_destroy = true # a group in use cannot be deleted
  }
}

resource "aws_iam_role" "monitoring" {
  name = "${var.name}-postgres-monitoring"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "monitoring.rds.amazonaws.com" }
      Action    = "sts:AssumeRole"
    }]
  })
}

resource "aws_iam_role_policy_attachment" "monitoring" {
  role       = aws_iam_role.monitoring.name
  policy_arn = "arn:${data.aws_partition.current.partition}:iam::aws:policy/service-role/AmazonRDSEnhancedMonitoringRole"
}

resource "aws_cloudwatch_log_group" "this" {
  for_each = toset(["postgresql", "upgrade"])

  name              = "/aws/rds/instance/${var.name}/${each.key}" # RDS's own name for it
  retention_in_days = var.log_retention_days
  kms_key_id        = var.logs_key_arn
}

resource "aws_db_instance" "this" {
  #checkov:skip=CKV_AWS_293:On everywhere but in dev, which is there to be thrown away
  identifier     = var.name
  engine         = "postgres"
  engine_version = var.engine_version
  instance_class = var.instance_class
  multi_az       = var.multi_az

  username                      = "isa"
  manage_master_user_password   = true
  master_user_secret_kms_key_id = var.data_key_arn

  storage_type          = "gp3"
  storage_encrypted     = true
  kms_key_id            = var.data_key_arn
  allocated_storage     = var.storage_gib
  max_allocated_storage = var.max_storage_gib

  db_subnet_group_name   = aws_db_subnet_group.this.name
  vpc_security_group_ids = [aws_security_group.this.id]
  publicly_accessible    = false
  port                   = 5432
  ca_cert_identifier     = "rds-ca-rsa2048-g1"

  parameter_group_name                = aws_db_parameter_group.this.name
  iam_database_authentication_enabled = true
  auto_minor_version_upgrade          = true
  allow_major_version_upgrade         = false

  # With backups RDS keeps the log too: any second of the last days can be restored, up to five minutes ago.
  backup_retention_period   = var.backup_days
  backup_window             = "01:30-02:30"
  maintenance_window        = "sun:03:00-sun:04:00"
  copy_tags_to_snapshot     = true
  delete_automated_backups  = !var.is_protected
  deletion_protection       = var.is_protected
  skip_final_snapshot       = !var.is_protected
  final_snapshot_identifier = var.is_protected ? "${var.name}-final" : null

  performance_insights_enabled          = true
  performance_insights_kms_key_id       = var.data_key_arn
  performance_insights_retention_period = 7
  monitoring_interval                   = 60
  monitoring_role_arn                   = aws_iam_role.monitoring.arn
  enabled_cloudwatch_logs_exports       = ["postgresql", "upgrade"]

  tags = { "isa-cloud.io/backup" = "daily" }

  depends_on = [aws_cloudwatch_log_group.this, aws_iam_role_policy_attachment.monitoring]
}
