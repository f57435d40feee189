# Yours: the names below are examples.
project             = "example-isa-staging"
region              = "europe-west3"
multi_region        = "eu"
domain              = "staging.isa.example.com"
authorized_networks = { office = "198.51.100.0/24" }
alarm_emails        = ["platform@example.com"]
billing_account     = "012345-6789AB-CDEF01"
