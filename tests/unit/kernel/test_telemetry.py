"""Logs: whatever is logged, a secret does not survive."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import trace
from pydantic import BaseModel

from kernel import telemetry
from kernel.call import CORRELATION, CURRENT, Call, Rule
from kernel.caller import Caller
from kernel.telemetry import MASK, mask

SECRETS = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", min_size=12, max_size=40)
NAMES = st.sampled_from(
    [
        "password",
        "PASSWORD",
        "passwd",
        "client_secret",
        "api_key",
        "apiKey",
        "dapr-api-token",
        "Authorization",
        "access_token",
        "private_pem",
        "db_dsn",
        "set-cookie",
        "credentials",
        "old_password_hash",
    ]
)
PLAIN = st.sampled_from(["message", "event", "path", "detail", "x", "items", "reason"])
TEMPLATES = st.sampled_from(
    [
        "Bearer {}", "bearer  {}", "authorization: Bearer {} was refused", "postgres://isa:{}@db:5432/tasks",
        "redis://:{}@cache", "amqp://user:p@{}@host/", "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJ4In0.{}",
        "login failed for password={}", "GET /v1/x?token={}&page=2", '{{"client_secret": "{}"}}', "api_key: {}",
        "Settings(smtp_password='{}', port=25)", "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----",
        "Basic {}==",
    ]
)  # fmt: skip


@dataclass
class Settings:
    """Holds a secret."""

    password: str
    port: int = 25


class Login(BaseModel):
    """Holds one too."""

    email: str
    password: str


def nested(leaf: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return a value somewhere inside lists, tuples and mappings of harmless names."""
    return st.recursive(
        leaf,
        lambda inner: (
            st.dictionaries(PLAIN, inner, min_size=1, max_size=2)
            | st.lists(inner, min_size=1, max_size=2)
            | st.tuples(inner)
        ),
        max_leaves=4,
    )


def logged(event: dict[str, Any]) -> str:
    """Return the line that a log call writes."""
    masked = telemetry._masked(None, "info", dict(event))
    return telemetry.orjson.dumps(masked, default=str).decode()


@settings(max_examples=60, deadline=None)
@given(st.data(), SECRETS, NAMES)
def test_what_a_name_gives_away_is_masked_however_deep(data: st.DataObject, secret: str, name: str) -> None:
    value = data.draw(nested(st.sampled_from([{name: secret}, {name: [secret]}, {name: {"value": secret}}])))

    assert secret not in logged({"event": "x", "value": value})
    assert secret not in logged({"event": "x", name: secret})


@settings(max_examples=60, deadline=None)
@given(st.data(), SECRETS, TEMPLATES)
def test_what_a_text_gives_away_is_masked_however_deep(data: st.DataObject, secret: str, template: str) -> None:
    value = data.draw(nested(st.just(template.format(secret))))

    assert secret not in logged({"event": template.format(secret), "value": value})


@settings(max_examples=30, deadline=None)
@given(SECRETS)
def test_secrets_hide_in_no_other_kind_of_value(secret: str) -> None:
    values: list[Any] = [
        f"Bearer {secret}".encode(),
        bytearray(f"Bearer {secret}".encode()),
        ValueError(f"postgres://isa:{secret}@db"),
        {f"Bearer {secret}"},
        frozenset({f"Bearer {secret}"}),
        Settings(password=secret),
        Login(email="a@b.example", password=secret),
        [Settings(password=secret)],
    ]

    for value in values:
        assert secret not in logged({"event": "x", "value": value}), value


@pytest.mark.parametrize(
    "value",
    [
        "task.completed", "The token was refused.", "http://127.0.0.1:3500/v1.0/healthz", 7, 1.5, None, True,
        datetime(2026, 3, 1, tzinfo=UTC), ["task-1"], {"task_id": "task-1"}, "user-alice", "Keep the basic settings",
    ],
)  # fmt: skip
def test_what_is_no_secret_is_left_as_it_is(value: object) -> None:
    assert mask(value, "value") == value


@pytest.mark.parametrize("name", sorted(telemetry.NOT_SECRET))
def test_some_names_only_sound_secret(name: str) -> None:
    assert mask("workload-signing-public", name) == "workload-signing-public"


def test_the_rest_of_a_text_stays_readable() -> None:
    assert (
        mask("dial postgres://isa:hunter2@db:5432/tasks failed") == f"dial postgres://isa:{MASK}@db:5432/tasks failed"
    )
    assert mask("authorization: Bearer abc.def was refused") == f"authorization: Bearer {MASK} was refused"
    assert mask("GET /v1/x?token=abc&page=2") == f"GET /v1/x?token={MASK}&page=2"


@pytest.fixture
def lines() -> Iterator[Any]:
    """Configure logging as a process does; return what reads the lines that were written."""
    before, root = structlog.get_config(), logging.getLogger()
    handlers, level = root.handlers[:], telemetry.LEVEL.name
    telemetry.configure("tasks", level="INFO", otlp_endpoint="", sampling=1.0)
    written = io.StringIO()
    ours = next(item for item in root.handlers if isinstance(item.formatter, structlog.stdlib.ProcessorFormatter))
    assert isinstance(ours, logging.StreamHandler)
    ours.setStream(written)
    yield lambda: [json.loads(line) for line in written.getvalue().splitlines()]
    structlog.configure(**before)
    structlog.contextvars.clear_contextvars()
    root.handlers[:] = handlers
    telemetry.LEVEL.set(level)


def test_a_log_line_says_who_what_and_in_which_trace(lines: Any) -> None:
    log = structlog.get_logger()
    call = Call(name="x", rule=Rule(anonymous=True), metadata={}, transport="http")
    call.caller = Caller(org="org-a", user="user-alice")
    correlation, current = CORRELATION.set("correlation-1"), CURRENT.set(call)
    try:
        with telemetry.span("x", metadata={}) as span:
            log.info("task.completed", task_id="task-1", client_secret="hunter2")
    finally:
        CORRELATION.reset(correlation)
        CURRENT.reset(current)

    [line] = lines()
    assert line.pop("timestamp").endswith("Z")
    assert line.pop("span_id") == f"{span.get_span_context().span_id:016x}"
    assert line.pop("trace_id") == telemetry.trace_id(span)
    assert line == {
        "event": "task.completed",
        "level": "info",
        "service": "tasks",
        "task_id": "task-1",
        "client_secret": MASK,
        "correlation_id": "correlation-1",
        "org_id": "org-a",
        "user_id": "user-alice",
    }


def test_a_traceback_shows_no_local_value(lines: Any) -> None:
    def log_in(body: Login) -> None:
        raise RuntimeError(f"No such user: Bearer {body.password}")

    body = Login(email="alice@example.com", password="correct-horse-battery")
    try:
        log_in(body)
    except RuntimeError:
        structlog.get_logger().exception("call.failed")
        logging.getLogger("library").exception("A library failed.")

    written = lines()
    text = json.dumps(written)
    assert len(written) == 2
    assert "correct-horse" not in text
    assert "alice@example.com" not in text
    assert "log_in" in text
    assert "RuntimeError" in text


def test_lines_of_libraries_look_like_ours(lines: Any) -> None:
    logging.getLogger("library").warning("Connected to %s", "postgres://isa:hunter2@db")

    [line] = lines()
    assert (line["service"], line["level"]) == ("tasks", "warning")
    assert line["event"] == f"Connected to postgres://isa:{MASK}@db"


@pytest.mark.parametrize("value", ["\ud800", 2**80, {1: "one"}, {("a", "b"): 1}, object(), float("nan"), b"\xff"])
def test_an_odd_value_loses_no_line(lines: Any, value: object) -> None:
    structlog.get_logger().info("odd", value=value)

    assert [line["event"] for line in lines()] == ["odd"]


def test_what_is_below_the_level_is_not_written(lines: Any) -> None:
    log = structlog.get_logger()
    log.debug("one")
    telemetry.LEVEL.set("debug")
    log.debug("two")
    telemetry.LEVEL.set("ERROR")
    log.warning("three")

    assert [line["event"] for line in lines()] == ["two"]


@pytest.mark.parametrize("name", ["LOUD", "", "10", "info\n"])
def test_an_unknown_level_is_refused(name: str) -> None:
    before = telemetry.LEVEL.name

    with pytest.raises(ValueError, match="no log level"):
        telemetry.LEVEL.set(name)

    assert telemetry.LEVEL.name == before


def test_what_goes_out_carries_the_trace_and_the_correlation() -> None:
    token = CORRELATION.set("correlation-1")
    incoming = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    try:
        with telemetry.span("x", metadata={"traceparent": incoming}):
            carried = telemetry.outgoing()
    finally:
        CORRELATION.reset(token)

    assert carried["isa-correlation-id"] == "correlation-1"
    assert carried["traceparent"].split("-")[1] == incoming.split("-")[1]
    assert isinstance(trace.get_current_span(), trace.Span)
