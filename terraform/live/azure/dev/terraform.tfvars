# Yours: the names below are examples.
subscription_id         = "00000000-0000-0000-0000-000000000000"
location                = "westeurope"
domain                  = "dev.isa.example.com"
administrator_group_ids = ["11111111-1111-1111-1111-111111111111"]
operator_cidrs          = ["198.51.100.0/24"]
alarm_emails            = ["platform@example.com"]
