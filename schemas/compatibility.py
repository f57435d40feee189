"""The gate before every change of a contract: what was written yesterday must be readable tomorrow.

`schemas/history` holds every version that was ever accepted, so that the gate needs neither git nor a network:
`history/avro/<topic>/<n>.avsc`, and the protos as they were accepted last. The gate fails when a contract breaks
one of them, and when it differs from the newest: `--accept` writes a compatible change down there, in the same commit.

Avro is held to BACKWARD_TRANSITIVE (today's reader reads what every earlier version wrote), the protos to buf's FILE
rules. With `--registry URL` the registry is asked too. Fields that look like names or e-mail addresses must be marked
`"pii": true`.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SCHEMAS = Path(__file__).resolve().parent
PERSONAL = re.compile(
    r"(^|_)(name|names|email|emails|mail|phone|phones|address|birthday|birthdate|title|ip|iban|ssn)(_|$)"
    r"|(user|nick|first|last|full|sur|given|family|display)name|e_?mail"
)
PROMOTIONS = {
    "int": {"int", "long", "float", "double"},
    "long": {"long", "float", "double"},
    "float": {"float", "double"},
    "string": {"string", "bytes"},
    "bytes": {"bytes", "string"},
}
"""What a writer's type may be read as."""

Schema = Any


def kind(schema: Schema) -> str:
    """Return the Avro type of a schema."""
    if isinstance(schema, list):
        return "union"
    return str(schema["type"]) if isinstance(schema, dict) else str(schema)


def short(schema: Schema) -> str:
    """Return the name of a record, enum or fixed without its namespace."""
    return str(schema["name"]).rpartition(".")[2]


def problems(reader: Schema, writer: Schema, path: str = "") -> list[str]:
    """Return why a reader cannot read what a writer wrote; empty when it can."""
    at = path or "the record"
    if kind(writer) == "union":
        return [reason for branch in writer for reason in problems(reader, branch, path)]
    if kind(reader) == "union":
        found = [problems(branch, writer, path) for branch in reader]
        return [] if any(not reasons for reasons in found) else [f"{at}: no branch takes {kind(writer)}"]
    if kind(reader) not in PROMOTIONS.get(kind(writer), {kind(writer)}):
        return [f"{at}: was {kind(writer)}, is {kind(reader)}"]
    if meaning(reader) != meaning(writer):
        return [f"{at}: meant {meaning(writer) or 'a plain value'}, means {meaning(reader) or 'a plain value'}"]
    match kind(writer):
        case "record":
            return record_problems(reader, writer, path)
        case "array":
            return problems(reader["items"], writer["items"], f"{path}[]")
        case "map":
            return problems(reader["values"], writer["values"], f"{path}{{}}")
        case "enum":
            gone = sorted(set(writer["symbols"]) - set(reader["symbols"]))
            return [f"{at}: {gone[0]} is gone and there is no default"] if gone and "default" not in reader else []
        case "fixed" if (short(reader), reader["size"]) != (short(writer), writer["size"]):
            return [f"{at}: its name or size changed"]
    return []


def meaning(schema: Schema) -> str:
    """Return the logical type, which Avro itself does not compare."""
    return str(schema.get("logicalType", "")) if isinstance(schema, dict) else ""


def record_problems(reader: Schema, writer: Schema, path: str) -> list[str]:
    """Return why a record cannot be read as another."""
    if short(reader) != short(writer):
        return [f"{path or 'the record'}: was {short(writer)}, is {short(reader)}"]
    written = {field["name"]: field for field in writer["fields"]}
    found: list[str] = []
    for field in reader["fields"]:
        name = f"{path}.{field['name']}".lstrip(".")
        if field["name"] in written:
            found += problems(field["type"], written[field["name"]]["type"], name)
        elif "default" not in field:
            found.append(f"{name}: is new and has no default; earlier records do not have it")
    return found


def unmarked(schema: Schema, path: str = "") -> Iterator[str]:
    """Yield fields that look personal and are not marked so."""
    match kind(schema):
        case "union":
            for branch in schema:
                yield from unmarked(branch, path)
        case "array":
            yield from unmarked(schema["items"], path)
        case "map":
            yield from unmarked(schema["values"], path)
        case "record":
            for field in schema["fields"]:
                name = f"{path}.{field['name']}".lstrip(".")
                if PERSONAL.search(field["name"].lower()) and field.get("pii") is not True:
                    yield name
                yield from unmarked(field["type"], name)


def bare(schema: Schema) -> Schema:
    """Return a schema without its texts, for comparing."""
    if isinstance(schema, list):
        return [bare(item) for item in schema]
    if isinstance(schema, dict):
        return {name: bare(value) for name, value in schema.items() if name != "doc"}
    return schema


def versions(topic: str, root: Path) -> list[tuple[Path, Schema]]:
    """Return the accepted versions of a topic's schema, oldest first."""
    files = sorted((root / "history" / "avro" / topic).glob("*.avsc"), key=lambda path: int(path.stem))
    return [(path, json.loads(path.read_text())) for path in files]


def avro_faults(root: Path = SCHEMAS) -> Iterator[str]:
    """Yield what is wrong with the event schemas, as sentences that say what to do."""
    current = {path.stem: json.loads(path.read_text()) for path in sorted((root / "avro").glob("*.avsc"))}
    for topic, schema in current.items():
        for name in unmarked(schema):
            yield f'{topic}: {name} looks like personal data. Leave it out, or mark it "pii": true.'
        accepted = versions(topic, root)
        for path, earlier in accepted:
            for reason in problems(schema, earlier):
                yield f"{topic}: breaks version {path.stem}: {reason}. Give new fields a default; never change a type."
        if not accepted or bare(accepted[-1][1]) != bare(schema):
            yield f"{topic}: is not the newest accepted version. Run `python schemas/compatibility.py --accept`."
    history = root / "history" / "avro"
    for folder in sorted(history.iterdir()) if history.is_dir() else ():
        if folder.name not in current:
            yield f"{folder.name}: its schema is gone, its records are not. Put schemas/avro/{folder.name}.avsc back."


def buf(*arguments: str) -> tuple[int, str]:
    """Run buf from this environment, or from PATH."""
    beside = Path(sys.executable).with_name("buf")
    program = str(beside) if beside.exists() else shutil.which("buf")
    if program is None:
        return 1, "buf is not installed: run `uv sync`."
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)  # noqa: S603
    return done.returncode, (done.stdout + done.stderr).strip()


def proto_files(folder: Path) -> dict[str, bytes]:
    """Return the proto files below a folder by their path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.proto"))}


def proto_faults(root: Path = SCHEMAS) -> Iterator[str]:
    """Yield what is wrong with the protos."""
    code, said = buf("lint", str(root))
    if code:
        yield f"buf lint: {said}"
    accepted = root / "history" / "proto"
    if accepted.is_dir():
        with tempfile.TemporaryDirectory() as folder:  # buf compares workspaces, with what their protos import
            shutil.copytree(accepted, Path(folder) / "proto")
            for shared in (root / "buf.yaml", root / "third_party"):
                if shared.is_dir():
                    shutil.copytree(shared, Path(folder) / shared.name)
                elif shared.exists():
                    shutil.copy(shared, folder)
            code, said = buf("breaking", str(root), "--against", folder)
        if code:
            yield f"buf breaking: {said}"
    if proto_files(root / "proto") != proto_files(accepted):
        yield "schemas/proto is not what was accepted last. Run `python schemas/compatibility.py --accept`."


def registry_faults(url: str, root: Path = SCHEMAS) -> Iterator[str]:
    """Yield what the registry would refuse, by its own check and by ours against every version that it has."""
    import httpx  # only this check needs it

    with httpx.Client(base_url=url, timeout=10) as client:
        for path in sorted((root / "avro").glob("*.avsc")):
            subject, schema = f"{path.stem}-value", json.loads(path.read_text())
            listed = client.get(f"/subjects/{subject}/versions")
            if listed.status_code == httpx.codes.NOT_FOUND:
                continue
            for number in listed.raise_for_status().json():
                stored = client.get(f"/subjects/{subject}/versions/{number}").raise_for_status().json()["schema"]
                for reason in problems(schema, json.loads(stored)):
                    yield f"{path.stem}: breaks version {number} of the registry: {reason}."
            text = json.dumps(schema, separators=(",", ":"))
            answer = client.post(f"/compatibility/subjects/{subject}/versions", json={"schema": text})
            if answer.is_success and not answer.json()["is_compatible"]:
                yield f"{path.stem}: the registry would refuse it: {answer.text[:300]}"


def accept(root: Path = SCHEMAS) -> list[str]:
    """Write today's contracts down as accepted; return what was new."""
    written: list[str] = []
    for path in sorted((root / "avro").glob("*.avsc")):
        accepted = versions(path.stem, root)
        if accepted and bare(accepted[-1][1]) == bare(json.loads(path.read_text())):
            continue
        target = root / "history" / "avro" / path.stem / f"{len(accepted) + 1}.avsc"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
        written.append(str(target.relative_to(root)))
    if proto_files(root / "proto") != proto_files(root / "history" / "proto"):
        shutil.rmtree(root / "history" / "proto", ignore_errors=True)
        for name, content in proto_files(root / "proto").items():
            target = root / "history" / "proto" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        written.append("history/proto")
    return written


def main() -> None:
    """Check, or accept what passes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accept", action="store_true", help="write today's contracts down, when they break nothing")
    parser.add_argument("--registry", metavar="URL", help="ask this registry too")
    arguments = parser.parse_args()
    faults = [*avro_faults(), *proto_faults()]
    if arguments.registry:
        faults += registry_faults(arguments.registry)
    if arguments.accept:
        faults = [fault for fault in faults if "--accept" not in fault]
        if not faults:
            for name in accept():
                sys.stdout.write(f"accepted {name}\n")
            return
    if faults:
        sys.exit("\n".join(faults))


if __name__ == "__main__":
    main()
