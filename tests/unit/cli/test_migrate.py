"""`isa migrate`: which rooms there are, where their owners log in, and the SQL that would run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from cli import migrate

REVISION = """
from alembic import op

revision = "0001_first"
down_revision = None


def upgrade():
    op.execute("CREATE TABLE things (id text PRIMARY KEY)")
"""


@pytest.fixture
def services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for room in ("apples", "pears"):
        versions = tmp_path / room / "migrations" / "versions"
        versions.mkdir(parents=True)
        (versions / "0001_first.py").write_text(REVISION)
    (tmp_path / "no_database").mkdir()
    return tmp_path


@pytest.fixture
def set_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("ISA_PORT_BASE", "POSTGRES_HOST", "POSTGRES_PORT", "ISA_SECRETS_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ISA_HOME", str(tmp_path))
    return tmp_path


def test_a_room_with_revisions_has_a_database(services: Path) -> None:
    assert list(migrate.rooms(services)) == ["apples", "pears"]
    assert [room.name for room in migrate.chosen([], services)] == ["apples", "pears"]
    assert [room.name for room in migrate.chosen(["pears"], services)] == ["pears"]
    assert migrate.rooms(services)["apples"].head == "0001_first"


def test_a_name_that_is_no_room_is_refused(services: Path) -> None:
    with pytest.raises(typer.BadParameter, match=r"plums has no migrations; known: apples, pears\."):
        migrate.chosen(["plums"], services)


def test_the_owner_logs_in_at_the_local_set(set_of: Path) -> None:
    (set_of / "secrets.json").write_text(json.dumps({"postgres-users-owner": "s/e:c@ret"}))

    url = migrate.url("users")

    assert (url.username, url.password, url.database, url.port) == ("users_owner", "s/e:c@ret", "users", 15432)
    assert url.drivername == "postgresql+psycopg"


def test_an_address_of_its_own_wins(set_of: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISA_MIGRATE_URL_USERS", "postgresql://me:secret@db.example:5433/people")

    url = migrate.url("users")

    assert (url.drivername, url.host, url.port, url.database) == (
        "postgresql+psycopg",
        "db.example",
        5433,
        "people",
    )


def test_without_a_password_it_says_what_to_do(set_of: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit):
        migrate.url("users")

    said = capsys.readouterr().err
    assert "postgres-users-owner" in said
    assert "ISA_MIGRATE_URL_USERS" in said


def test_the_sql_is_printed_and_nothing_is_run(services: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrate, "SERVICES", services)
    monkeypatch.setattr(migrate.chosen, "__defaults__", (services,))
    app = typer.Typer()
    migrate.register(app)

    result = CliRunner().invoke(app, ["--sql", "apples"])

    assert result.exit_code == 0, result.output
    assert "-- apples" in result.output
    assert "CREATE TABLE things (id text PRIMARY KEY);" in result.output
    assert "pears" not in result.output


def test_every_room_of_the_set_has_its_tables_under_row_level_security() -> None:
    for room in migrate.rooms().values():
        assert room.head != "nothing"
        assert len(room.scripts.get_heads()) == 1
