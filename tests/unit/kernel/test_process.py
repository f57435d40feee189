"""The start of a process: it waits for what it needs, and not for ever."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError
from pydantic_settings import BaseSettings

from docs import configuration
from isa_common import DeadlineExceeded, NotFound, PermissionDenied, Unauthenticated, Unavailable
from kernel import process as module
from kernel.parts import new_id, utc_now
from kernel.process import until_there
from kernel.settings import ProcessSettings, RoomSettings


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TRY_AGAIN_AFTER", 0.001)


class Attempts:
    """Fails as it is told, then answers."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.count = 0

    async def __call__(self) -> str:
        self.count += 1
        if self.failures:
            raise self.failures.pop(0)
        return "there"


async def test_what_is_not_there_yet_is_waited_for() -> None:
    attempt = Attempts(Unavailable("No."), DeadlineExceeded("Slow."), Unauthenticated("Not yet."))

    assert await until_there("The database", attempt) == "there"
    assert attempt.count == 4


@pytest.mark.parametrize("failure", [PermissionDenied("No."), NotFound("No."), RuntimeError("Bug.")])
async def test_what_waiting_does_not_mend_stops_the_start(failure: Exception) -> None:
    attempt = Attempts(failure)

    with pytest.raises(type(failure)):
        await until_there("The database", attempt)

    assert attempt.count == 1


async def test_waiting_ends_and_says_for_what(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "START_WITHIN", 0.02)

    with pytest.raises(Unavailable, match=r"The database is not there after .* No route"):
        await until_there("The database", Attempts(*[Unavailable("No route.")] * 1000))


NEEDED = {"APP_ID": "tasks", "APP_PORT": "8002"}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for field in ProcessSettings.model_fields.values():
        alias = field.validation_alias
        for name in [alias] if isinstance(alias, str) else getattr(alias, "choices", []):
            monkeypatch.delenv(str(name), raising=False)
    for name, value in NEEDED.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def settings() -> ProcessSettings:
    return ProcessSettings()  # type: ignore[call-arg]  # from the environment


def test_a_process_is_configured_by_its_environment(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("ISA_DRAIN_SECONDS", "5")
    environment.setenv("ISA_SPOOL_DIR", "/var/spool/isa")
    environment.setenv("DAPR_API_TOKEN", "hunter2")

    found = settings()

    assert (found.app_id, found.app_port) == ("tasks", 8002)
    assert found.drain == timedelta(seconds=5)
    assert found.spool_dir == Path("/var/spool/isa")
    assert "hunter2" not in repr(found)


def test_a_process_needs_its_name_and_its_port(environment: pytest.MonkeyPatch) -> None:
    environment.delenv("APP_ID")

    with pytest.raises(ValidationError):
        settings()


@pytest.mark.parametrize(
    ("name", "value"), [("OTEL_TRACES_SAMPLER_ARG", "2"), ("ISA_CALL_TIMEOUT", "0"), ("APP_PORT", "http")]
)
def test_nonsense_in_the_environment_stops_the_start(environment: pytest.MonkeyPatch, name: str, value: str) -> None:
    environment.setenv(name, value)

    with pytest.raises(ValidationError):
        settings()


DURATIONS = [
    (settings, prefix, setting.variables[0], setting.name)
    for _, _, settings, prefix in configuration.classes()
    for setting in configuration.settings_of(settings, prefix)
    if setting.form == "duration"
]


@pytest.mark.parametrize(("value", "seconds"), [("90", 90), ("0.5", 0.5), ("PT1M30S", 90), ("P1D", 86_400)])
@pytest.mark.parametrize(("settings", "prefix", "variable", "name"), DURATIONS, ids=[each[2] for each in DURATIONS])
def test_every_duration_is_taken_in_seconds_and_as_iso_8601(
    environment: pytest.MonkeyPatch,
    settings: type[BaseSettings],
    prefix: str,
    variable: str,
    name: str,
    value: str,
    seconds: float,
) -> None:
    environment.setenv(variable, value)

    assert getattr(settings(_env_prefix=prefix), name) == timedelta(seconds=seconds)


@pytest.mark.parametrize("value", ["", "soon", "inf", "nan", "1e300"])
def test_what_is_no_duration_stops_the_start(environment: pytest.MonkeyPatch, value: str) -> None:
    environment.setenv("ISA_DRAIN_SECONDS", value)

    with pytest.raises(ValidationError):
        settings()


def test_a_room_is_configured_under_its_own_name(environment: pytest.MonkeyPatch) -> None:
    class Settings(RoomSettings):
        page_size: int = 50

    environment.setenv("TASKS_PAGE_SIZE", "20")
    environment.setenv("PAGE_SIZE", "10")

    assert Settings(_env_prefix="TASKS_").page_size == 20
    assert Settings(_env_prefix="USERS_").page_size == 50


def test_new_ids_keep_to_the_grammar_and_differ() -> None:
    ids = {new_id("task") for _ in range(1000)}

    assert len(ids) == 1000
    assert all(item.startswith("task-") and len(item) == 31 for item in ids)
    assert set("".join(ids)) <= set("task-abcdefghijklmnopqrstuvwxyz234567")


def test_now_knows_its_zone() -> None:
    assert utc_now().tzinfo is not None
