mock_provider "azurerm" {
  source = "../../../tests/mocks/azure"
}

variables {
  name                = "isa-prod"
  location            = "westeurope"
  resource_group_name = "isa-prod"
  unique              = "a1b2c3"
  subnet_id           = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/isa-prod/providers/Microsoft.Network/virtualNetworks/isa-prod/subnets/endpoints"
  private_zone_id     = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/isa-prod/providers/Microsoft.Network/privateDnsZones/privatelink.servicebus.windows.net"
  processing_units    = 1
  key                 = { id = "https://isa-prod-serv-a1b2c3.vault.azure.net/keys/kafka", identity_id = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/isa-prod/providers/Microsoft.ManagedIdentity/userAssignedIdentities/isa-prod-kafka" }
  log_workspace_id    = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/isa-prod/providers/Microsoft.OperationalInsights/workspaces/isa-prod"
  topics = {
    "task.created"     = { partitions = 3, config = { "cleanup.policy" = "delete", "retention.ms" = "604800000" } }
    "task.created.dlq" = { partitions = 3, config = { "cleanup.policy" = "delete", "retention.ms" = "2592000000" } }
    "control.changed"  = { partitions = 1, config = { "cleanup.policy" = "compact" } }
  }
}

run "topics_are_as_the_events_want_them" {
  command = plan

  assert {
    condition     = azurerm_eventhub.this["task.created"].partition_count == 3 && azurerm_eventhub.this["task.created"].retention_description[0].retention_time_in_hours == 168 && azurerm_eventhub.this["task.created.dlq"].retention_description[0].retention_time_in_hours == 720 && azurerm_eventhub.this["control.changed"].retention_description[0].cleanup_policy == "Compact"
    error_message = "An event hub must have the partitions and the retention of charts/derived/topics.yaml."
  }
}

run "the_tier_has_room_for_our_topics" {
  command = plan

  assert {
    condition     = azurerm_eventhub_namespace.this.sku == "Premium"
    error_message = "Standard has 10 event hubs and 7 days: our topics with their dead letters need Premium."
  }
}

run "it_is_private_and_speaks_tls" {
  command = plan

  assert {
    condition     = !azurerm_eventhub_namespace.this.public_network_access_enabled && azurerm_eventhub_namespace.this.minimum_tls_version == "1.2" && azurerm_private_endpoint.this.private_service_connection[0].subresource_names[0] == "namespace"
    error_message = "Event Hubs must be reached by its private endpoint only."
  }
}

run "what_is_stored_is_encrypted_with_our_key" {
  command = plan

  assert {
    condition     = contains(azurerm_eventhub_namespace_customer_managed_key.this.key_vault_key_ids, var.key.id)
    error_message = "The namespace needs our key."
  }
}

run "services_cannot_make_topics" {
  command = plan

  assert {
    condition     = !azurerm_eventhub_namespace_authorization_rule.services.manage && azurerm_eventhub_namespace_authorization_rule.services.send && azurerm_eventhub_namespace_authorization_rule.services.listen
    error_message = "The services' connection string may send and listen."
  }
}

run "dapr_finds_it" {
  command = plan

  assert {
    condition     = output.brokers == "isa-prod-a1b2c3.servicebus.windows.net:9093" && output.username == "$ConnectionString"
    error_message = "Event Hubs' Kafka listens at 9093, and the user is literally $ConnectionString."
  }
}

run "three_units_are_refused" {
  command = plan

  variables {
    processing_units = 3
  }

  expect_failures = [var.processing_units]
}

run "too_many_topics_are_refused" {
  command = plan

  variables {
    topics = { for number in range(101) : "topic.${number}" => { partitions = 1, config = { "cleanup.policy" = "compact" } } }
  }

  expect_failures = [var.topics]
}
