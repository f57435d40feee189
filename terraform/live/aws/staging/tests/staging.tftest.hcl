mock_provider "aws" {
  source = "../../../tests/mocks/aws"
}

run "the_environment_can_be_made_and_hands_over_its_name" {
  assert {
    condition     = output.environment == "staging" && output.cluster_name == "isa-staging" && output.secret_prefix == "isa-staging-" && output.region == "eu-central-1"
    error_message = "The environment's name must be in everything that it hands over."
  }
}
