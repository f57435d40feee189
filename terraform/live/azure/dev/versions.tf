terraform {
  required_version = ">= 1.11"

  required_providers {
    azurerm = {
      source  = "hashicorp/azurerm"
      version = "~> 5.2"
    }
  }

  # Account and container are the subscription's: terraform init -backend-config=backend.hcl, which terraform/bootstrap/azure prints.
  backend "azurerm" {
    key              = "azure/dev.tfstate"
    use_azuread_auth = true
  }
}
