terraform {
  required_version = ">= 1.11"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 5.100"
    }
  }

  # Bucket, region and key are the account's: terraform init -backend-config=backend.hcl, which terraform/bootstrap/aws prints.
  backend "s3" {
    key          = "aws/prod/terraform.tfstate"
    encrypt      = true
    use_lockfile = true
  }
}
