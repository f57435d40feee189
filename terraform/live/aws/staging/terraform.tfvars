# Yours: the names below are examples.
region              = "eu-central-1"
domain              = "staging.isa.example.com"
administrators      = { platform = "arn:aws:iam::111122223333:role/platform-admin" }
public_access_cidrs = ["198.51.100.0/24"]
alarm_emails        = ["platform@example.com"]
