# Yours: the names below are examples.
region              = "eu-central-1"
replica_region      = "eu-west-1"
zones               = ["eu-central-1a", "eu-central-1b", "eu-central-1c"]
domain              = "isa.example.com"
administrators      = { platform = "arn:aws:iam::111122223333:role/platform-admin" }
public_access_cidrs = ["198.51.100.0/24"]
alarm_emails        = ["platform@example.com"]
