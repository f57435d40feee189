resource "azurerm_dns_zone" "this" {
  name                = var.domain
  resource_group_name = var.resource_group_name
}

resource "azurerm_dns_caa_record" "this" {
  name                = "@"
  zone_name           = azurerm_dns_zone.this.name
  resource_group_name = var.resource_group_name
  ttl                 = 3600

  dynamic "record" {
    for_each = toset(["issue", "issuewild"])

    content {
      flags = 0
      tag   = record.value
      value = var.certificate_issuer
    }
  }
}
