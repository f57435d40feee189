# Yours: the names below are examples.
project             = "example-isa-prod"
region              = "europe-west3"
replica_region      = "europe-west4"
multi_region        = "eu"
domain              = "isa.example.com"
authorized_networks = { office = "198.51.100.0/24" }
alarm_emails        = ["platform@example.com"]
billing_account     = "012345-6789AB-CDEF01"
