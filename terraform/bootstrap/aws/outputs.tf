output "backend" {
  description = "The file backend.hcl of every live/aws/<env>."
  value       = <<-EOT
    bucket     = "${module.state.id}"
    region     = "${var.region}"
    kms_key_id = "${aws_kms_key.state.arn}"
  EOT
}

output "plan_role_arn" {
  description = "Role of the CI on pull requests."
  value       = aws_iam_role.ci["plan"].arn
}

output "apply_role_arn" {
  description = "Role of the CI in an environment."
  value       = aws_iam_role.ci["apply"].arn
}
