"""What may be in the tree and what may not."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from tests.architecture.tree import ROOT, name_of, sources, tracked

SECRETS = {
    "a private key": re.compile(rb"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----\s+[A-Za-z0-9+/]{40}"),
    "a key of AWS": re.compile(rb"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    "a token of GitHub": re.compile(rb"\bgh[pousr]_[A-Za-z0-9]{36}\b"),
    "a token of Slack": re.compile(rb"\bxox[abprs]-[0-9A-Za-z-]{10,}"),
    "a JWT": re.compile(rb"\beyJ[A-Za-z0-9_-]{15,}\.eyJ[A-Za-z0-9_-]{15,}\.[A-Za-z0-9_-]{20,}"),
    "a password in a URL": re.compile(rb"\b[a-z]+://[A-Za-z0-9_]+:(?!\$|\{|%|<|\*)[^@\s/\"'`<{$]{6,}@[a-z0-9.-]+"),
}
KEPT_LOCAL = {".env", "secrets.json", "tokens.json"}
NOTED = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")


def test_no_secret_is_in_the_tree() -> None:
    found = [
        f"{name_of(path)} holds {what}"
        for path in tracked()
        if path.stat().st_size < 2_000_000
        for what, pattern in SECRETS.items()
        if not (what == "a password in a URL" and path.is_relative_to(ROOT / "tests"))  # made up there
        if pattern.search(path.read_bytes())
    ]

    assert not found, f"{'; '.join(found)}. Secrets are generated at the first start, into ISA_HOME."


def test_no_file_of_secrets_is_tracked() -> None:
    found = [name_of(path) for path in tracked() if path.name in KEPT_LOCAL]

    assert not found, f"Take {found} out of the tree and into .gitignore."


def test_both_distributions_have_one_version() -> None:
    versions = {
        path: tomllib.loads((ROOT / path).read_text())["project"]["version"]
        for path in ("pyproject.toml", "client/pyproject.toml")
    }

    assert len(set(versions.values())) == 1, f"One version for all: {versions}."


def test_no_work_is_left_as_a_note() -> None:
    found = [
        f"{name_of(path)}:{number}"
        for path in sources()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if NOTED.search(line)
    ]

    assert not found, f"Do it or open an issue: {', '.join(found)}."


def test_dependencies_are_pinned_and_say_why() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]

    loose = [name for name in wanted if "==" not in name and not name.startswith("isa-common")]

    assert not loose, f"Pin {', '.join(loose)} in pyproject.toml."


def test_every_package_of_the_tree_is_typed() -> None:
    assert (ROOT / "client/isa_common/py.typed").exists()
    assert Path(ROOT / "schemas/gen/isa/py.typed").exists()
