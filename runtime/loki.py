"""Loki's configuration: one process, files on this disk, a tenant in every request."""

from __future__ import annotations

from pathlib import Path

from runtime.layout import Layout


def configuration(layout: Layout) -> Path:
    """Where Loki's configuration is written."""
    return layout.run / "loki.yaml"


def prepare(layout: Layout) -> None:
    """Write the configuration."""
    configuration(layout).write_text(document(layout))


def document(layout: Layout) -> str:
    """The configuration file."""
    data = layout.data / "loki"
    return f"""\
auth_enabled: true
server:
  http_listen_address: 127.0.0.1
  http_listen_port: {layout.engine_port("loki")}
  grpc_listen_address: 127.0.0.1
  grpc_listen_port: {layout.engine_port("loki-grpc")}
  log_level: warn
  grpc_server_max_recv_msg_size: 16777216
  grpc_server_max_send_msg_size: 16777216
common:
  path_prefix: {data}
  replication_factor: 1
  instance_addr: 127.0.0.1
  ring:
    instance_addr: 127.0.0.1
    kvstore: {{store: inmemory}}
  storage:
    filesystem:
      chunks_directory: {data}/chunks
      rules_directory: {data}/rules
schema_config:
  configs:
    - from: "2024-01-01"
      store: tsdb
      object_store: filesystem
      schema: v13
      index: {{prefix: index_, period: 24h}}
ingester:
  lifecycler: {{min_ready_duration: 0s, final_sleep: 0s}}
  wal: {{dir: {data}/wal, flush_on_shutdown: true}}
limits_config:
  allow_structured_metadata: true
  reject_old_samples: false
  creation_grace_period: 1h
  unordered_writes: true
  ingestion_rate_mb: 32
  ingestion_burst_size_mb: 64
  max_global_streams_per_user: 50000
  volume_enabled: false
  split_queries_by_interval: 24h # the default of 1h makes 720 queries of one that looks a month back
  discover_log_levels: false
  discover_service_name: []
query_range:
  parallelise_shardable_queries: false
frontend:
  encoding: protobuf
  scheduler_address: {layout.address("loki-grpc")}
  scheduler_dns_lookup_period: 500ms # how long the first start of a query path waits
frontend_worker:
  scheduler_address: {layout.address("loki-grpc")}
  dns_lookup_duration: 500ms
query_scheduler:
  use_scheduler_ring: false
pattern_ingester: {{enabled: false}}
analytics: {{reporting_enabled: false}}
"""
