"""The folders of terraform/ that can be planned alone, and what is run in each.

A folder that has passed is not run again until it changes, or what it calls or reads, or Terraform, or a provider does.
ISA_TERRAFORM=all runs everything. Nothing is written into the checkout: a copy is what Terraform works in.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from runtime.layout import CHECKOUT, layout_from_environment
from tests.deploy.tools import HOSTS, providers, run, terraform_environment, tool

ROOT = CHECKOUT / "terraform"
CALLS = re.compile(r'^\s*source\s*=\s*"(\.{1,2}/[^"]+)"', re.MULTILINE)
"""A module, or the answers of a mocked provider."""
READS = re.compile(r'\$\{path\.module\}/([^"$]+)"')


def folders(*clouds: str) -> list[str]:
    """Every module, environment and bootstrap of some clouds, as a path from terraform/."""
    found = {path.parent.relative_to(ROOT) for path in ROOT.rglob("*.tf") if ".terraform" not in path.parts}
    return sorted(str(folder) for folder in found if folder.parts[1] in clouds)


def copy_to(place: Path) -> Path:
    """Copy what Terraform reads; return the copy of terraform/."""
    ignored = shutil.ignore_patterns(".terraform", "*.tfstate*", "backend.hcl")
    shutil.copytree(ROOT, place / "terraform", ignore=ignored)
    shutil.copytree(CHECKOUT / "charts" / "derived", place / "charts" / "derived")
    return place / "terraform"


def check(folder: str, tree: Path, environment: dict[str, str] | None = None, also: str = "") -> None:
    """Initialise, validate and test a folder, unless the same has passed before; `also` names what else decides."""
    proof = layout_from_environment().cache / "terraform" / "passed" / digest(folder, also)
    if proof.exists() and os.environ.get("ISA_TERRAFORM") != "all":
        return
    environment = environment if environment is not None else terraform_environment()
    place = tree / folder
    run(tool("terraform"), "init", "-backend=false", "-input=false", "-no-color", cwd=place, env=environment)
    run(tool("terraform"), "validate", "-no-color", cwd=place, env=environment)
    run(tool("terraform"), "test", "-no-color", cwd=place, env=environment)
    proof.parent.mkdir(parents=True, exist_ok=True)
    proof.write_text(f"{folder}\n")


def digest(folder: str, also: str = "") -> str:
    """A hash of everything that decides whether a folder passes."""
    state = hashlib.sha256(f"{folder} {tools()} {also}".encode())
    for path in sorted(files(ROOT / folder, set())):
        state.update(str(path.relative_to(CHECKOUT)).encode())
        state.update(path.read_bytes())
    return state.hexdigest()


@cache
def tools() -> str:
    """Which Terraform and which providers there are."""
    version = run(tool("terraform"), "version", "-json", cwd=CHECKOUT / "charts")
    held = (providers() / HOSTS[0] / "hashicorp").glob("*/*")
    return " ".join([version, *sorted(f"{path.parent.name} {path.name}" for path in held)])


def files(folder: Path, seen: set[Path]) -> Iterator[Path]:
    """The files of a folder, of the folders that it calls, and those that it reads."""
    folder = folder.resolve()
    if folder in seen:
        return
    seen.add(folder)
    for path in folder.rglob("*"):
        if not path.is_file() or ".terraform" in path.parts:
            continue
        yield path
        if path.suffix in {".tf", ".hcl"}:
            text = path.read_text()
            for called in CALLS.findall(text):
                yield from files(folder / called, seen)
            yield from ((folder / read).resolve() for read in READS.findall(text))
