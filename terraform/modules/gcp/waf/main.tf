locals {
  # The rule sets of OWASP's core rules that Google keeps; sensitivity 1 has hardly any false alarms.
  rule_sets = [
    "sqli-v33-stable", "xss-v33-stable", "lfi-v33-stable", "rfi-v33-stable", "rce-v33-stable",
    "methodenforcement-v33-stable", "scannerdetection-v33-stable", "protocolattack-v33-stable",
    "sessionfixation-v33-stable",
  ]
}

# Attached by the name: GCPBackendPolicy of the gateway's Service, or BackendConfig of an Ingress in front of it.
resource "google_compute_security_policy" "this" {
  #checkov:skip=CKV_GCP_73:The first rule is against it, in the newer form of the expression that the scanner does not know
  name        = var.name
  description = "Edge of ${var.name}"
  type        = "CLOUD_ARMOR"

  adaptive_protection_config {
    layer_7_ddos_defense_config {
      enable          = true
      rule_visibility = "STANDARD"
    }
  }

  advanced_options_config {
    json_parsing = "STANDARD"
    log_level    = "NORMAL"
  }

  rule {
    action      = "deny(403)"
    priority    = 1
    description = "Log4Shell and its kin"
    preview     = var.is_preview

    match {
      expr {
        expression = "evaluatePreconfiguredWaf('cve-canary', {'sensitivity': 1})"
      }
    }
  }

  dynamic "rule" {
    for_each = local.rule_sets

    content {
      action      = "deny(403)"
      priority    = 1000 + rule.key
      description = rule.value
      preview     = var.is_preview

      match {
        expr {
          expression = "evaluatePreconfiguredWaf('${rule.value}', {'sensitivity': 1})"
        }
      }
    }
  }

  rule {
    action      = "throttle"
    priority    = 2000
    description = "One address, so many requests a minute"
    preview     = var.is_preview

    match {
      versioned_expr = "SRC_IPS_V1"

      config {
        src_ip_ranges = ["*"]
      }
    }

    rate_limit_options {
      conform_action = "allow"
      exceed_action  = "deny(429)"
      enforce_on_key = "IP"

      rate_limit_threshold {
        count        = var.requests_per_minute
        interval_sec = 60
      }
    }
  }

  rule {
    action      = "allow"
    priority    = 2147483647
    description = "What no rule refuses"

    match {
      versioned_expr = "SRC_IPS_V1"

      config {
        src_ip_ranges = ["*"]
      }
    }
  }
}
