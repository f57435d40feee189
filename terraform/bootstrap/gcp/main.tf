# What must be there before anything else: the services of Google that we use, where Terraform keeps its state, and who the CI is.
# Applied once a project, by a person, with its own state kept beside it until `terraform init -migrate-state` moves it into the
# bucket that it made (terraform/modules/gcp/README.md).

provider "google" {
  project = var.project
  region  = var.region

  default_labels = { made-by = "terraform-bootstrap-gcp" }
}

data "google_project" "this" {
  project_id = var.project
}

data "google_storage_project_service_account" "this" {
  depends_on = [google_project_service.this]
}

locals {
  services = toset([
    "artifactregistry", "billingbudgets", "binaryauthorization", "cloudkms", "cloudresourcemanager", "compute", "container",
    "containersecurity", "dns", "gkebackup", "iam", "iamcredentials", "logging", "managedkafka", "monitoring", "pubsub", "redis",
    "secretmanager", "servicenetworking", "sqladmin", "storage", "sts",
  ])
  issuer = "https://token.actions.githubusercontent.com"

  # A pull request may look (plan); only a job in the environment of that name, which the forge guards by reviewers, may change
  # something (apply). Who makes keys and gives rights is an administrator, whatever the role is called.
  accounts = {
    plan  = { subject = "repo:${var.repository}:pull_request", roles = ["roles/viewer", "roles/iam.securityReviewer"] }
    apply = { subject = "repo:${var.repository}:environment:${var.environment}", roles = ["roles/owner"] }
  }
  grants = merge([
    for account, given in local.accounts : { for role in given.roles : "${account} ${role}" => { account = account, role = role } }
  ]...)
}

resource "google_project_service" "this" {
  for_each = local.services

  service            = "${each.value}.googleapis.com"
  disable_on_destroy = false
}

resource "google_kms_key_ring" "state" {
  name     = "terraform-state"
  location = var.region

  depends_on = [google_project_service.this]
}

resource "google_kms_crypto_key" "state" {
  name            = "terraform-state"
  key_ring        = google_kms_key_ring.state.id
  rotation_period = "7776000s"

  lifecycle {
    prevent_destroy = true
  }
}

resource "google_kms_crypto_key_iam_member" "state" {
  crypto_key_id = google_kms_crypto_key.state.id
  role          = "roles/cloudkms.cryptoKeyEncrypterDecrypter"
  member        = data.google_storage_project_service_account.this.member
}

resource "google_storage_bucket" "state" {
  #checkov:skip=CKV_GCP_62:Cloud Audit Logs record who reads and writes the state: monitoring turns them on for storage
  name                        = "${var.project}-terraform-state"
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"

  encryption {
    default_kms_key_name = google_kms_crypto_key.state.id
  }

  versioning {
    enabled = true
  }

  soft_delete_policy {
    retention_duration_seconds = 30 * 24 * 3600
  }

  lifecycle_rule {
    action {
      type = "Delete"
    }
    condition {
      num_newer_versions         = 20
      days_since_noncurrent_time = 90
    }
  }

  lifecycle {
    prevent_destroy = true
  }

  depends_on = [google_kms_crypto_key_iam_member.state]
}

# The CI: no keys, but the forge's own token, and only of this repository.

resource "google_iam_workload_identity_pool" "forge" {
  workload_identity_pool_id = "forge"
  display_name              = "Jobs of the forge"

  depends_on = [google_project_service.this]
}

resource "google_iam_workload_identity_pool_provider" "forge" {
  #checkov:skip=CKV_GCP_125:Only tokens of our repository are taken, and each account trusts one subject; the scanner does not follow the variable
  workload_identity_pool_id          = google_iam_workload_identity_pool.forge.workload_identity_pool_id
  workload_identity_pool_provider_id = "actions"
  attribute_condition                = "assertion.repository == '${var.repository}'"
  attribute_mapping = {
    "google.subject"       = "assertion.sub"
    "attribute.repository" = "assertion.repository"
  }

  oidc {
    issuer_uri = local.issuer
  }
}

resource "google_service_account" "ci" {
  for_each = local.accounts

  account_id   = "terraform-${each.key}"
  display_name = "CI, terraform ${each.key}"
}

resource "google_service_account_iam_member" "ci" {
  for_each = local.accounts

  service_account_id = google_service_account.ci[each.key].name
  role               = "roles/iam.workloadIdentityUser"
  member             = "principal://iam.googleapis.com/${google_iam_workload_identity_pool.forge.name}/subject/${each.value.subject}"
}

resource "google_project_iam_member" "ci" {
  #checkov:skip=CKV_GCP_117:Applying makes keys and gives rights: that is an administrator. The forge's reviewers guard who may be it
  #checkov:skip=CKV_GCP_49:The same
  for_each = local.grants

  project = var.project
  role    = each.value.role
  member  = google_service_account.ci[each.value.account].member
}

resource "google_storage_bucket_iam_member" "ci" {
  for_each = local.accounts

  bucket = google_storage_bucket.state.name
  role   = "roles/storage.objectUser" # a plan takes the lock, too
  member = google_service_account.ci[each.key].member
}
