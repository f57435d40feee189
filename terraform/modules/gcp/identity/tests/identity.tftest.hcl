mock_provider "google" {
  source = "../../../tests/mocks/gcp"
}

variables {
  name          = "isa-prod"
  workload_pool = "example-isa.svc.id.goog"
  services      = ["tasks", "users"]
  secret_prefix = "isa-prod-"
  dns_zone      = "isa-prod"
  loki_bucket   = "example-isa-isa-prod-loki"
  backup_bucket = "example-isa-isa-prod-backup"
}

run "only_named_service_accounts_act_as_an_account" {
  command = plan

  assert {
    condition     = toset(keys(google_service_account_iam_member.this)) == toset(["isa-cloud/tasks", "isa-cloud/users", "isa-cloud/topics", "external-secrets/external-secrets", "cert-manager/cert-manager", "external-dns/external-dns", "isa-data/loki", "isa-data/backup"]) && google_service_account_iam_member.this["isa-data/loki"].member == "serviceAccount:example-isa.svc.id.goog[isa-data/loki]"
    error_message = "Exactly the service accounts of the charts may act as Google's."
  }
}

run "secrets_of_other_environments_stay_closed" {
  command = plan

  assert {
    condition     = strcontains(google_project_iam_member.secrets.condition[0].expression, "/secrets/isa-prod-") && google_project_iam_member.secrets.role == "roles/secretmanager.secretAccessor"
    error_message = "external-secrets may read what begins with the environment's prefix."
  }
}

run "a_bucket_is_for_one_workload" {
  command = plan

  assert {
    condition     = google_storage_bucket_iam_member.this["loki"].bucket == var.loki_bucket && google_storage_bucket_iam_member.this["backup"].bucket == var.backup_bucket && length(google_storage_bucket_iam_member.this) == 2
    error_message = "Loki and the backup jobs may each write their own bucket."
  }
}
