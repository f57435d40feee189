"""What the documents name exists: files, commands, options, alerts, settings, versions."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from cli.main import build
from docs import configuration
from tests.architecture.tree import ROOT, name_of, tracked

DOCUMENTS = [path for path in tracked() if path.suffix == ".md"]
FENCE = re.compile(r"^(?P<ticks>```+)(?P<language>\w*)[^\n]*\n(?P<body>.*?)^(?P=ticks)\s*$", re.M | re.S)
SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
SHELL = {"sh", "bash", "shell"}
COMMAND = re.compile(
    r"(?:^|[;&|(])\s*(?:[A-Z_]+=\S+ )*(?:\S+/)?(?P<tool>make|isa) (?P<rest>[^;&|)\n#]+)", re.M
)  # where a shell has a command: `psql -U isa tasks` is none of ours
PATH = re.compile(
    r"(?:bench|cli|client|components|compose|docs|examples|kernel|observability|runtime|schemas|services|tests)"
    r"/[A-Za-z0-9_./-]*[A-Za-z0-9_]"
)
LINK = re.compile(r"\]\((?!https?://|mailto:)(?P<file>[^)\s#]*)(?:#(?P<anchor>[^)\s]+))?\)")
OF_THE_READER = ("greeting", "sqlite", "<")
"""Marks of paths that the guides tell their reader to make."""


def code(path: Path) -> Iterator[str]:
    """Yield what a document shows as code that could be typed: spans, and blocks of a shell."""
    text = path.read_text()
    for block in FENCE.finditer(text):
        body = block["body"].replace("\\\n", " ")
        if block["language"] == "console":  # the rest is what was printed
            yield "\n".join(line[2:] for line in body.splitlines() if line.startswith("$ "))
        elif block["language"] in SHELL:
            yield body
    yield from SPAN.findall(FENCE.sub("", text))


def commands(tool: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the words that follow a tool's name, with the document that shows them."""
    for path in DOCUMENTS:
        for piece in code(path):
            for found in COMMAND.finditer(piece):
                if found["tool"] == tool:
                    yield name_of(path), found["rest"].split()


def anchors(path: Path) -> set[str]:
    """Return what the headings of a document can be linked by."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", path.read_text()), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(document: Path) -> None:
    for link in LINK.finditer(FENCE.sub("", document.read_text())):
        target = (document.parent / link["file"]) if link["file"] else document
        assert target.exists(), f"{name_of(document)}: {link['file']} is not there."
        if link["anchor"] and target.suffix == ".md":
            assert link["anchor"] in anchors(target), f"{name_of(document)}: {link[0]} names no heading of its target."


@pytest.mark.parametrize("document", [path for path in DOCUMENTS if path.parent.name != "decisions"], ids=name_of)
def test_files_that_a_document_names_exist(document: Path) -> None:
    spans = SPAN.findall(FENCE.sub("", document.read_text()))
    named = {span for span in spans if PATH.fullmatch(span) and not any(mark in span for mark in OF_THE_READER)}

    missing = sorted(name for name in named if not any((base / name).exists() for base in (ROOT, document.parent)))

    assert not missing, f"{name_of(document)} names {', '.join(missing)}, and there is no such file."


def test_make_targets_that_documents_name_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))

    unknown = [
        f"{document}: make {words[0]}"
        for document, words in commands("make")
        if re.fullmatch(r"[a-z-]+", words[0]) and words[0] not in targets
    ]

    assert not unknown, f"The Makefile has no such target: {'; '.join(unknown)}."


def test_commands_and_options_that_documents_name_exist() -> None:
    root = typer.main.get_command(build())
    faults = [
        fault
        for document, words in commands("isa")
        if words[0][0].islower() or words[0].startswith("-")
        for fault in faults_of(root, words, document)
    ]

    assert not faults, "; ".join(faults)


def faults_of(root: Any, words: list[str], document: str) -> Iterator[str]:
    """Yield what a command line names that `isa`, whose click command is `root`, does not have."""
    command, rest = root, list(words)
    while hasattr(command, "commands") and rest and re.fullmatch(r"[a-z][a-z-]*", rest[0]):
        name = rest.pop(0)
        if name not in command.commands:
            yield f"{document}: there is no `isa {' '.join(words)}`"
            return
        command = command.commands[name]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    for word in rest:
        if word.startswith("-") and (option := word.partition("=")[0]) not in {*known, "--help"}:
            yield f"{document}: `isa {' '.join(words)}` has no {option}"


def test_the_check_of_commands_sees_what_is_wrong() -> None:
    root = typer.main.get_command(build())

    assert list(faults_of(root, ["events", "tail", "task.created.dlq", "-n", "5"], "a")) == []
    assert list(faults_of(root, ["events", "peek"], "a")) == ["a: there is no `isa events peek`"]
    assert list(faults_of(root, ["down", "--all"], "a")) == ["a: `isa down --all` has no --all"]


def test_decision_records_are_short_and_whole() -> None:
    records = sorted((ROOT / "docs/decisions").glob("[0-9]*.md"))

    assert [int(path.name[:4]) for path in records] == list(range(1, len(records) + 1)), "Number them without a gap."
    for path in records:
        text = path.read_text()
        assert len(text.splitlines()) <= 40, f"{name_of(path)} has more than 40 lines."
        headings = re.findall(r"^## (.+)$", text, re.M)
        assert headings == ["Context", "Decision", "Consequences", "Alternatives", "Enforced by"], (
            f"{name_of(path)} has the headings {headings}."
        )
        assert re.match(rf"# {int(path.name[:4])}\. ", text), f"{name_of(path)} begins with its number and title."


def test_documents_name_the_version_of_the_project() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    heading = re.search(r"^## \[(?P<version>[^\]]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)

    assert heading, "CHANGELOG.md has no `## [version]`."
    assert heading["version"] in (version, "Unreleased"), (
        f"CHANGELOG.md begins with {heading['version']}, not {version}."
    )
    named = re.findall(r"(?i)(?:\bversion |isa-cloud[ =@:/-]v?)(\d+\.\d+\.\d+)", (ROOT / "README.md").read_text())
    assert set(named) <= {version}, f"README.md names {named}, pyproject.toml {version}."
    assert f"ISA_VERSION={version}\n" in (ROOT / ".env.example").read_text(), f".env.example: ISA_VERSION is {version}."


@pytest.mark.parametrize("generator", ["docs.configuration", "docs.attack"])
def test_a_page_that_is_generated_is_fresh(generator: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", generator, "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr


def test_every_setting_has_a_meaning_and_a_variable_of_its_own() -> None:
    mute: list[str] = []
    owners: dict[tuple[str, str], list[str]] = {}
    for heading, _, settings, prefix in configuration.classes():
        for setting in configuration.settings_of(settings, prefix):
            if not setting.meaning:
                mute.append(f"{heading}: {setting.name}")
            for variable in setting.variables:
                owners.setdefault((variable, heading), []).append(setting.name)

    assert not mute, f"Say below the field what it means: {', '.join(mute)}."
    assert all(len(names) == 1 for names in owners.values()), f"One variable, one setting: {owners}."


def test_a_duration_is_written_as_the_environment_takes_it() -> None:
    given = (timedelta(days=30), timedelta(minutes=10), timedelta(seconds=1.5), timedelta())

    written = [configuration.duration(value) for value in given]

    assert written == ["P30D", "PT10M", "PT1.5S", "PT0S"]


def test_the_guide_explains_every_alert() -> None:
    text = (ROOT / "docs/guides/operate.md").read_text()
    alerts = [
        rule["alert"]
        for path in sorted((ROOT / "observability/rules").glob("*.yaml"))
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
        if "alert" in rule
    ]

    missing = [alert for alert in alerts if f"`{alert}`" not in text]

    assert not missing, f"docs/guides/operate.md says nothing of {', '.join(missing)}."
    stale = set(re.findall(r"^\| `([A-Z][a-z]\w+)`", text, re.M)) - set(alerts)
    assert not stale, f"docs/guides/operate.md explains {', '.join(sorted(stale))}, which no rule raises."


def test_the_guide_names_every_secret() -> None:
    from runtime.layout import Layout
    from runtime.processes import load_apps
    from runtime.secrets import generate

    layout = Layout(home=ROOT / ".isa", cache=ROOT / ".isa")
    names = generate(layout, [app.name for app in load_apps()])
    text = (ROOT / "docs/guides/operate.md").read_text()
    pattern = {re.sub(r"-(owner|app|system)$", "-<role>", name) for name in names}
    pattern = {
        "postgres-<database>-<role>" if name.endswith("-<role>")
        else "workload-client-<app-id>" if name.startswith("workload-client-")
        else name
        for name in pattern
    }  # fmt: skip

    missing = sorted(name for name in pattern if f"`{name}`" not in text)

    assert not missing, f"docs/guides/operate.md says nothing of the secrets {', '.join(missing)}."
