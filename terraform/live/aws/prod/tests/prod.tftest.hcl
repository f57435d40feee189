mock_provider "aws" {
  source = "../../../tests/mocks/aws"
}

mock_provider "aws" {
  alias  = "replica"
  source = "../../../tests/mocks/aws"
}

run "the_environment_can_be_made_and_hands_over_its_name" {
  assert {
    condition     = output.environment == "prod" && output.cluster_name == "isa-prod" && output.secret_prefix == "isa-prod-" && output.region == "eu-central-1"
    error_message = "The environment's name must be in everything that it hands over."
  }
}

run "copies_in_the_same_region_are_refused" {
  command = plan

  variables {
    replica_region = "eu-central-1"
  }

  expect_failures = [var.replica_region]
}
