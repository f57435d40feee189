"""The gate refuses what would make yesterday's records unreadable, and lets the rest through."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import fastavro
import pytest

from schemas import compatibility
from schemas.compatibility import accept, avro_faults, problems, proto_faults, unmarked, versions

TIME = {"type": "long", "logicalType": "timestamp-micros"}


def record(*fields: dict[str, Any], name: str = "TaskCreated") -> dict[str, Any]:
    """Return a record schema."""
    return {"type": "record", "name": name, "namespace": "isa.events", "doc": "A test.", "fields": list(fields)}


ID = {"name": "id", "type": "string"}
BEFORE = record(ID, {"name": "at", "type": TIME}, {"name": "size", "type": "int"})

COMPATIBLE = {
    "nothing": BEFORE,
    "a field with a default": record(*BEFORE["fields"], {"name": "note", "type": ["null", "string"], "default": None}),
    "a field is gone": record(ID, {"name": "at", "type": TIME}),
    "a wider number": record(ID, {"name": "at", "type": TIME}, {"name": "size", "type": "long"}),
    "may now be absent": record(ID, {"name": "at", "type": TIME}, {"name": "size", "type": ["null", "int"]}),
    "another order": record(*reversed(BEFORE["fields"])),
}
BREAKING = {
    "a field without a default": (record(*BEFORE["fields"], {"name": "note", "type": "string"}), "note: is new"),
    "another type": (record(ID, {"name": "at", "type": TIME}, {"name": "size", "type": "string"}), "size: was int"),
    "a renamed field": (record({"name": "uid", "type": "string"}, *BEFORE["fields"][1:]), "uid: is new"),
    "a renamed record": (record(*BEFORE["fields"], name="TaskMade"), "the record: was TaskCreated"),
    "a time that is none any more": (
        record(ID, {"name": "at", "type": "long"}, {"name": "size", "type": "int"}),
        "at: meant timestamp-micros",
    ),
}


@pytest.mark.parametrize("name", COMPATIBLE)
def test_a_compatible_change_passes_and_old_records_are_read(name: str) -> None:
    after = COMPATIBLE[name]
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, fastavro.parse_schema(BEFORE), {"id": "a", "at": 1, "size": 2})
    buffer.seek(0)

    found = problems(after, BEFORE)

    assert found == []
    read = fastavro.schemaless_reader(buffer, fastavro.parse_schema(BEFORE), fastavro.parse_schema(after))
    assert isinstance(read, dict)
    assert read["id"] == "a"


@pytest.mark.parametrize("name", BREAKING)
def test_a_breaking_change_is_refused_by_the_name_of_its_field(name: str) -> None:
    after, reason = BREAKING[name]

    found = problems(after, BEFORE)

    assert len(found) == 1
    assert found[0].startswith(reason)


def test_a_field_that_could_be_absent_cannot_become_required() -> None:
    before = record({"name": "note", "type": ["null", "string"], "default": None})
    after = record({"name": "note", "type": "string", "default": ""})

    assert problems(after, before) == ["note: was null, is string"]


def test_nested_records_are_looked_into() -> None:
    inner = record(ID, name="Entry")
    grown = record(ID, {"name": "by", "type": "string"}, name="Entry")
    before = record({"name": "entries", "type": {"type": "array", "items": inner}})
    after = record({"name": "entries", "type": {"type": "array", "items": grown}})

    assert problems(after, before) == ["entries[].by: is new and has no default; earlier records do not have it"]


@pytest.mark.parametrize("name", ["name", "first_name", "email", "e_mail", "user_email", "username", "phone", "title"])
def test_a_personal_field_must_be_marked(name: str) -> None:
    assert list(unmarked(record({"name": name, "type": "string"}))) == [name]
    assert list(unmarked(record({"name": name, "type": "string", "pii": True}))) == []


@pytest.mark.parametrize("name", ["user_id", "kind", "renamed", "channel", "aggregate_id", "shipped"])
def test_other_fields_need_no_mark(name: str) -> None:
    assert list(unmarked(record({"name": name, "type": "string"}))) == []


@pytest.fixture
def contracts(tmp_path: Path) -> Path:
    """Return a copy of the contracts that a test may spoil."""
    for name in ("avro", "proto", "history", "third_party", "buf.yaml"):
        source = compatibility.SCHEMAS / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)  # type: ignore[operator]
    return tmp_path


def change(path: Path, **added: object) -> None:
    """Add a field to a schema."""
    schema = json.loads(path.read_text())
    schema["fields"].append(added)
    path.write_text(json.dumps(schema))


@pytest.mark.ac("phase-v:A1.2:3", "platform:R1.5")
def test_the_committed_contracts_pass() -> None:
    assert [*avro_faults(), *proto_faults()] == []


def test_a_compatible_change_asks_to_be_written_down_and_then_passes(contracts: Path) -> None:
    change(contracts / "avro/task.created.avsc", name="weight", type="int", default=0, doc="A test.")

    before = list(avro_faults(contracts))
    written = accept(contracts)

    assert len(before) == 1
    assert "--accept" in before[0]
    newest = len(versions("task.created", compatibility.SCHEMAS)) + 1
    assert written == [f"history/avro/task.created/{newest}.avsc"]
    assert list(avro_faults(contracts)) == []


def test_a_change_that_breaks_a_version_before_the_last_is_refused(contracts: Path) -> None:
    path = contracts / "avro/task.created.avsc"
    first = path.read_text()
    without = json.loads(first)
    without["fields"] = [field for field in without["fields"] if field["name"] != "source"]
    path.write_text(json.dumps(without))
    accept(contracts)
    back = json.loads(first)
    next(field for field in back["fields"] if field["name"] == "source").update(type="int", default=0)
    path.write_text(json.dumps(back))

    faults = list(avro_faults(contracts))

    assert any("breaks version 1: source: was string, is int" in fault for fault in faults)
    last = len(versions("task.created", contracts))
    assert not any(f"breaks version {last}:" in fault for fault in faults)


def test_a_schema_that_is_gone_is_asked_back(contracts: Path) -> None:
    (contracts / "avro/task.deleted.avsc").unlink()

    assert any("task.deleted: its schema is gone" in fault for fault in avro_faults(contracts))


def test_a_breaking_proto_is_refused_by_buf(contracts: Path) -> None:
    path = contracts / "proto/isa/sql/v1/sql.proto"
    path.write_text(path.read_text().replace("int64 affected = 1;", "string affected = 1;"))

    assert any(fault.startswith("buf breaking") and "affected" in fault for fault in proto_faults(contracts))


def test_a_repository_without_history_is_asked_to_write_it(contracts: Path) -> None:
    shutil.rmtree(contracts / "history")

    faults = [*avro_faults(contracts), *proto_faults(contracts)]
    accept(contracts)

    assert faults
    assert all("--accept" in fault for fault in faults)
    assert [*avro_faults(contracts), *proto_faults(contracts)] == []
