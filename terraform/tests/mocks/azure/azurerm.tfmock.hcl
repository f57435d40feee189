# What a mocked Azure answers, where a random string will not do.

mock_data "azurerm_client_config" {
  defaults = {
    tenant_id       = "22222222-2222-2222-2222-222222222222"
    subscription_id = "00000000-0000-0000-0000-000000000000"
    object_id       = "33333333-3333-3333-3333-333333333333"
    client_id       = "44444444-4444-4444-4444-444444444444"
  }
}
