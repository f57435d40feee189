# An entry of Secrets Manager for each secret. Values come later and from elsewhere (terraform/README.md, "First secrets"): no
# password is ever in a plan or a state.

resource "aws_secretsmanager_secret" "this" {
  #checkov:skip=CKV2_AWS_57:RDS rotates its administrator's password itself; the others change together with what they open, by a runbook
  for_each = var.secret_names

  name                    = "${var.prefix}${each.key}"
  description             = "${each.key} of ${var.name}"
  kms_key_id              = var.data_key_arn
  recovery_window_in_days = var.is_protected ? 30 : 0
}
