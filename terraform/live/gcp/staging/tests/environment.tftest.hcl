mock_provider "google" {
  source = "../../../tests/mocks/gcp"
}

variables {
  postgres_admin_password = "0123456789abcdef0123456789abcdef"
}

run "the_environment_can_be_made_and_hands_over_its_name" {
  command = plan

  assert {
    condition     = output.cloud == "gcp" && output.environment == "staging" && output.cluster_name == "isa-staging" && output.secret_prefix == "isa-staging-" && output.region == "europe-west3"
    error_message = "The environment's name must be in everything that it hands over."
  }
}
