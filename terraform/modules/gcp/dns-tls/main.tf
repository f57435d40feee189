resource "google_dns_managed_zone" "this" {
  name        = var.name
  dns_name    = "${var.domain}."
  description = "Zone of ${var.name}, written by external-dns and cert-manager"

  dnssec_config {
    state         = "on"
    non_existence = "nsec3"

    default_key_specs {
      algorithm  = "ecdsap256sha256"
      key_type   = "keySigning"
      key_length = 256
    }
    default_key_specs {
      algorithm  = "ecdsap256sha256"
      key_type   = "zoneSigning"
      key_length = 256
    }
  }

  cloud_logging_config {
    enable_logging = true
  }
}

resource "google_dns_record_set" "caa" {
  managed_zone = google_dns_managed_zone.this.name
  name         = google_dns_managed_zone.this.dns_name
  type         = "CAA"
  ttl          = 3600
  rrdatas      = ["0 issue \"${var.certificate_issuer}\"", "0 issuewild \"${var.certificate_issuer}\""]
}
