"""What an operator may change, by environment. Names that no room prefixes are the same for every process."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AliasChoices, BeforeValidator, Field
from pydantic_settings import BaseSettings, SettingsConfigDict


def _of_seconds(given: object) -> object:
    try:
        return timedelta(seconds=float(given)) if isinstance(given, str) else given
    except OverflowError:
        raise ValueError("no machine lives that long") from None
    except ValueError:
        return given  # ISO 8601, or pydantic says what is wrong


Seconds = Annotated[timedelta, BeforeValidator(_of_seconds)]
"""A duration, in seconds or as ISO 8601 has it; pydantic alone takes no plain number from the environment."""


class ProcessSettings(BaseSettings):
    """What the runtime, compose or the chart tells every room's process."""

    model_config = SettingsConfigDict(extra="ignore")

    app_id: str = Field(validation_alias=AliasChoices("APP_ID", "SERVICE_NAME"))
    """Dapr app-id of this process."""
    app_port: int = Field(validation_alias=AliasChoices("APP_PORT", "GRPC_PORT"))
    """Port that its sidecar, or a user, reaches it at."""
    app_host: str = Field("127.0.0.1", validation_alias="APP_HOST")
    """Address that it listens on; 0.0.0.0 only where a network policy stands before it."""
    metrics_port: int = Field(0, validation_alias="METRICS_PORT")
    """Port of /metrics for a gRPC room; an HTTP room serves it on its app port."""
    dapr_host: str = Field("127.0.0.1", validation_alias="DAPR_HOST")
    """Where its sidecar listens."""
    dapr_grpc_port: int = Field(50001, validation_alias="DAPR_GRPC_PORT")
    """The sidecar's gRPC API."""
    dapr_http_port: int = Field(3500, validation_alias="DAPR_HTTP_PORT")
    """The sidecar's HTTP API."""
    dapr_api_token: str = Field("", validation_alias="DAPR_API_TOKEN", repr=False)
    """What this process shows to its sidecar."""
    app_api_token: str = Field("", validation_alias="APP_API_TOKEN", repr=False)
    """What the sidecar shows on callbacks. Empty means that no callback is accepted."""
    registry_url: str = Field("http://127.0.0.1:18081/apis/ccompat/v7", validation_alias="REGISTRY_URL")
    """The schema registry, with the path of its Confluent-compatible API."""
    kafka_brokers: str = Field("127.0.0.1:19092", validation_alias="KAFKA_BROKERS")
    """For lag only; events go through Dapr."""
    spool_dir: Path = Field(Path(".isa/spool"), validation_alias="ISA_SPOOL_DIR")
    """Folder of the audit spool; keep it on a disk that survives the process."""
    log_level: str = Field("INFO", validation_alias="LOG_LEVEL")
    """DEBUG, INFO, WARNING, ERROR or CRITICAL; `PUT /-/log-level` changes it while the process runs."""
    otlp_endpoint: str = Field("", validation_alias="OTEL_EXPORTER_OTLP_ENDPOINT")
    """Where traces go; empty: they are made and carried, and not exported."""
    trace_sampling: float = Field(1.0, ge=0, le=1, validation_alias="OTEL_TRACES_SAMPLER_ARG")
    """Share of traces that are kept; production: 0.1."""
    drain: Seconds = Field(timedelta(seconds=30), validation_alias="ISA_DRAIN_SECONDS")
    """How long work in flight may finish after SIGTERM."""
    call_timeout: float = Field(30.0, gt=0, validation_alias="ISA_CALL_TIMEOUT")
    """Seconds that a call may take when its caller named no deadline."""
    share_calls: int = Field(256, gt=0, validation_alias="ISA_SHARE_CALLS")
    """Calls that an organisation may have open at an adapter's replica, streams aside."""
    share_streams: int = Field(64, gt=0, validation_alias="ISA_SHARE_STREAMS")
    """Streams that an organisation may have open at an adapter's replica."""
    share_rate: float = Field(10_000.0, gt=0, validation_alias="ISA_SHARE_RATE")
    """Items a second that an organisation may send to an adapter's replica: one a call, or as many as its batch has."""
    share_burst: float = Field(50_000.0, ge=1, validation_alias="ISA_SHARE_BURST")
    """Items that it may send at once after a rest."""
    share_bytes: int = Field(10 << 30, gt=0, validation_alias="ISA_SHARE_BYTES")
    """Bytes that an organisation may store on an adapter's engine."""
    max_body: int = Field(1 << 20, validation_alias="ISA_MAX_BODY")
    """Largest HTTP body in bytes, where a route does not say otherwise."""
    issuer: str = Field("isa-users", validation_alias="ISA_TOKEN_ISSUER")
    """Whose tokens are taken: their claim `iss`."""
    audience: str = Field("isa", validation_alias="ISA_TOKEN_AUDIENCE")
    """For whom they must be made: their claim `aud`."""


class RoomSettings(BaseSettings):
    """Base of a room's own settings; the prefix of their environment names is the room's name."""

    model_config = SettingsConfigDict(extra="ignore")


class KafkaLogin(BaseSettings):
    """What Kafka asks of who connects; names in the environment begin with KAFKA_."""

    model_config = SettingsConfigDict(extra="ignore", env_prefix="KAFKA_")

    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """Whether it is spoken to over TLS, and with a login."""
    sasl_mechanism: Literal["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] = ""
    """How the login is proven; OAUTHBEARER is IAM's of Amazon MSK, by the role and region of the process."""
    sasl_username: str = ""
    """Who logs in."""
    password: str = Field(default="", repr=False)
    """The password, for commands; rooms read the secret `kafka-password` when it is empty."""
    ca: str = ""
    """Kafka's own certificate authority, as PEM; empty: those that the machine trusts."""
