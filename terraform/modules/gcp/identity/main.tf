# A service account of Google's for each kind of workload, which only the named service accounts of the cluster may act as.
# There are no keys here: pods get short tokens by workload identity.

data "google_project" "this" {}

locals {
  project = data.google_project.this.project_id

  # workload => the Kubernetes service accounts (namespace/name) that act as it
  subjects = {
    services         = concat([for service in var.services : "isa-cloud/${service}"], ["isa-cloud/topics"])
    external-secrets = ["external-secrets/external-secrets"]
    cert-manager     = ["cert-manager/cert-manager"]
    external-dns     = ["external-dns/external-dns"]
    loki             = ["isa-data/loki"]
    backup           = ["isa-data/backup"]
  }
  bindings = merge([
    for workload, subjects in local.subjects : { for subject in subjects : subject => workload }
  ]...)
  dns = toset(["cert-manager", "external-dns"])
  buckets = {
    loki   = var.loki_bucket
    backup = var.backup_bucket
  }
}

resource "google_service_account" "this" {
  for_each = local.subjects

  account_id   = "${var.name}-${each.key}"
  display_name = "${each.key} of ${var.name}"
}

resource "google_service_account_iam_member" "this" {
  for_each = local.bindings

  service_account_id = google_service_account.this[each.value].name
  role               = "roles/iam.workloadIdentityUser"
  member             = "serviceAccount:${var.workload_pool}[${each.key}]"
}

resource "google_project_iam_member" "secrets" {
  project = local.project
  role    = "roles/secretmanager.secretAccessor"
  member  = google_service_account.this["external-secrets"].member

  condition {
    title      = "only-${var.name}"
    expression = "resource.name.startsWith(\"projects/${data.google_project.this.number}/secrets/${var.secret_prefix}\")"
  }
}

resource "google_dns_managed_zone_iam_member" "this" {
  for_each = local.dns

  managed_zone = var.dns_zone
  role         = "roles/dns.admin"
  member       = google_service_account.this[each.key].member
}

resource "google_project_iam_member" "zones" {
  for_each = local.dns # both look a zone up in the project's list before they write in it

  project = local.project
  role    = "roles/dns.reader"
  member  = google_service_account.this[each.key].member
}

resource "google_storage_bucket_iam_member" "this" {
  for_each = local.buckets

  bucket = each.value
  role   = "roles/storage.objectUser"
  member = google_service_account.this[each.key].member
}
