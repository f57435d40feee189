# What a mocked Google answers, where a random string will not do.

mock_data "google_project" {
  defaults = {
    project_id = "example-isa"
    number     = "123456789012"
  }
}
