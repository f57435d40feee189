# One key a purpose, so that losing or revoking one does not take everything with it. Google's service agents use them;
# they exist once `terraform/bootstrap/gcp` has enabled the services.

data "google_project" "this" {}

data "google_storage_project_service_account" "this" {}

locals {
  number     = data.google_project.this.number
  has_copies = var.replica_region != ""
  # Cloud KMS has another name than Cloud Storage for Europe.
  multi_region = { eu = "europe", us = "us", asia = "asia" }[var.multi_region]
  agents = {
    disks    = "service-${local.number}@compute-system.iam.gserviceaccount.com"
    cluster  = "service-${local.number}@container-engine-robot.iam.gserviceaccount.com"
    postgres = "service-${local.number}@gcp-sa-cloud-sql.iam.gserviceaccount.com"
    kafka    = "service-${local.number}@gcp-sa-managedkafka.iam.gserviceaccount.com"
    redis    = "service-${local.number}@cloud-redis.iam.gserviceaccount.com"
    secrets  = "service-${local.number}@gcp-sa-secretmanager.iam.gserviceaccount.com"
    backup   = "service-${local.number}@gcp-sa-gkebackup.iam.gserviceaccount.com"
    topics   = "service-${local.number}@gcp-sa-pubsub.iam.gserviceaccount.com"
    objects  = data.google_storage_project_service_account.this.email_address
  }
  keys = merge(
    { for purpose, agent in local.agents : purpose => { location = var.region, agent = agent } },
    local.has_copies ? {
      postgres-replica = { location = var.replica_region, agent = local.agents.postgres }
      secrets-replica  = { location = var.replica_region, agent = local.agents.secrets }
      backup-replica   = { location = var.replica_region, agent = local.agents.backup }
      objects-replica  = { location = local.multi_region, agent = local.agents.objects }
    } : {},
  )
}

resource "google_kms_key_ring" "this" {
  for_each = toset([for key in local.keys : key.location])

  name     = var.name
  location = each.value
}

resource "google_kms_crypto_key" "this" {
  for_each = local.keys

  name            = each.key
  key_ring        = google_kms_key_ring.this[each.value.location].id
  rotation_period = "7776000s" # 90 days; older versions stay, and still decrypt

  version_template {
    algorithm        = "GOOGLE_SYMMETRIC_ENCRYPTION"
    protection_level = var.protection_level
  }

  lifecycle {
    prevent_destroy = true # with the key goes everything that it encrypts, backups too
  }
}

resource "google_kms_crypto_key_iam_member" "agent" {
  for_each = local.keys

  crypto_key_id = google_kms_crypto_key.this[each.key].id
  role          = "roles/cloudkms.cryptoKeyEncrypterDecrypter"
  member        = "serviceAccount:${each.value.agent}"
}

# A volume that Kubernetes makes is encrypted on behalf of the cluster's agent as well.
resource "google_kms_crypto_key_iam_member" "volumes" {
  crypto_key_id = google_kms_crypto_key.this["disks"].id
  role          = "roles/cloudkms.cryptoKeyEncrypterDecrypter"
  member        = "serviceAccount:${local.agents.cluster}"
}
