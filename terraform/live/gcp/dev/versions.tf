terraform {
  required_version = ">= 1.11"

  required_providers {
    google = {
      source  = "hashicorp/google"
      version = "~> 6.50"
    }
  }

  # The bucket is the project's: terraform init -backend-config=backend.hcl, which terraform/bootstrap/gcp prints. It has its own
  # lock, and its own key.
  backend "gcs" {
    prefix = "gcp/dev"
  }
}
