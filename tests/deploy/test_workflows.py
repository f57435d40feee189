"""What the forge runs: the commands that people run, by actions that cannot change, with no more rights than needed."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from argocd.promote import ISSUER, REGISTRY, SIGNER
from runtime.layout import CHECKOUT
from runtime.processes import load_apps
from tests.deploy.tools import run, tool

FORGE = CHECKOUT / ".github"
WORKFLOWS = sorted((FORGE / "workflows").glob("*.yaml"))
ACTIONS = sorted((FORGE / "actions").glob("*/action.yaml"))
MAY_WRITE = {
    ("images", "build"): {"packages", "id-token"},
    ("release", "notes"): {"contents"},
    ("release", "wheel"): {"id-token"},
    ("release", "charts"): {"packages", "id-token"},
    ("security", "code"): {"security-events"},
    ("terraform", "plan"): {"id-token"},
    ("terraform", "apply"): {"id-token"},
}
"""Workflow and job -> what it may write; whoever needs more says so here, where a reviewer sees it."""

Job = dict[str, Any]


def read(path: Path) -> dict[str, Any]:
    """A workflow; YAML takes its `on` for a yes."""
    document = yaml.safe_load(path.read_text())
    document["on"] = document.pop(True, None)
    return dict(document)


def jobs() -> Iterator[tuple[str, str, Job]]:
    """Workflow, name and body of every job."""
    for path in WORKFLOWS:
        for name, job in read(path)["jobs"].items():
            yield path.stem, name, job


def steps() -> Iterator[tuple[str, dict[str, Any]]]:
    """Where it is, and the step."""
    for workflow, name, job in jobs():
        for step in job["steps"]:
            yield f"{workflow}.yaml, {name}", step
    for path in ACTIONS:
        for step in yaml.safe_load(path.read_text())["runs"]["steps"]:
            yield f"actions/{path.parent.name}", step


def test_actionlint_finds_nothing() -> None:
    run(tool("actionlint"), "-shellcheck=", "-pyflakes=", *WORKFLOWS)


@pytest.mark.ac("phase-v:SEC4:3")
def test_every_action_is_one_commit_whose_version_is_said() -> None:
    versions: dict[str, set[str]] = {}
    for path in [*WORKFLOWS, *ACTIONS]:
        for line in path.read_text().splitlines():
            if found := re.search(r"uses: (\S+)(.*)", line):
                action, comment = found[1], found[2]
                if action.startswith("./"):
                    assert (CHECKOUT / action / "action.yaml").exists(), f"{path.name}: there is no {action}."
                    continue
                assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action), f"{path.name}: pin {action} by its commit."
                assert re.fullmatch(r" # v\d+(\.\d+)*", comment), f"{path.name}: say which version {action} is."
                versions.setdefault(action.partition("@")[0], set()).add(action)
    several = {action for action, found in versions.items() if len(found) > 1}
    assert not several, f"Pinned to several commits: {sorted(several)}."


def test_no_job_may_more_than_it_does() -> None:
    for path in WORKFLOWS:
        assert read(path)["permissions"] == {"contents": "read"}, f"{path.name}: nothing but reading, for all jobs."
    for workflow, name, job in jobs():
        permissions = job.get("permissions", {})
        written = {key for key, value in permissions.items() if value == "write"}
        assert written == MAY_WRITE.get((workflow, name), set()), f"{workflow}.yaml, {name} may write {written}."
        assert isinstance(job.get("timeout-minutes"), int), f"{workflow}.yaml, {name} may run for six hours."
        document = read(FORGE / "workflows" / f"{workflow}.yaml")
        queued = "concurrency" in document or "concurrency" in job or "strategy" not in job
        assert queued, f"{workflow}.yaml, {name}: two of it would run at once."


def test_a_pull_request_gets_no_secret_and_no_word_into_a_shell() -> None:
    for path in WORKFLOWS:
        triggers = read(path)["on"]
        names = set(triggers) if isinstance(triggers, dict | list) else {triggers}
        assert not names & {"pull_request_target", "workflow_run"}, (
            f"{path.name} would run strangers' code with rights."
        )
        if "pull_request" in names:
            assert "secrets." not in path.read_text(), f"{path.name} runs on pull requests and reads a secret."
    for where, step in steps():
        assert "${{" not in step.get("run", ""), f"{where}: give it by `env`; an expression is pasted into the script."
        if step.get("uses", "").startswith("actions/checkout@"):
            options = step["with"]
            assert options.get("persist-credentials") is False or "token" in options, (
                f"{where} leaves its token behind."
            )


def test_what_workflows_run_is_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*##", (CHECKOUT / "Makefile").read_text(), re.MULTILINE))
    for where, step in steps():
        script = step.get("run", "")
        for target in re.findall(r"\bmake ([a-z-]+)", script):
            assert target in targets, f"{where}: the Makefile has no {target}."
        for file in re.findall(r"(?:^|\s)((?:\.ci|\.github|argocd|ops|runtime)/[\w./-]+)", script):
            path = CHECKOUT / file
            assert path.exists(), f"{where}: there is no {file}."
            if not path.suffix or path.suffix == ".sh":
                assert os.access(path, os.X_OK), f"{file} is no program."
    gate = (CHECKOUT / ".ci/run").read_text()
    assert {"make lint", "make test"} <= set(gate.splitlines()), "ci.yaml runs .ci/run, which runs what people run."


@pytest.mark.ac("phase-v:C2.3")
def test_every_room_becomes_an_image_that_production_would_believe() -> None:
    workflow = read(FORGE / "workflows/images.yaml")
    derived = [yaml.safe_load(path.read_text())["service"] for path in (CHECKOUT / "charts/derived/services").glob("*")]

    assert {each["name"] for each in derived} == {app.name for app in load_apps()}
    assert "charts/derived/services/*.yaml" in workflow["jobs"]["rooms"]["steps"][-1]["run"]
    build = workflow["jobs"]["build"]
    assert build["env"]["IMAGE"].startswith(f"{REGISTRY}/")
    made = next(step for step in build["steps"] if step.get("id") == "build")["with"]
    assert made["platforms"] == "linux/amd64,linux/arm64" and made["sbom"] is True and made["provenance"] == "mode=max"
    argument, _, value = made["build-args"].partition("=")
    assert f"ARG {argument}=" in (CHECKOUT / "Dockerfile").read_text() and value == "${{ matrix.room.package }}"
    order = [step.get("uses", step.get("run", "")) for step in build["steps"]]
    scanned = next(index for index, each in enumerate(order) if "trivy-action" in each)
    signed = next(index for index, each in enumerate(order) if each.startswith("cosign sign"))
    assert scanned < signed, "An image is signed when the scan passed it, and not before."
    assert SIGNER.endswith("/.github/workflows/images.yaml@refs/heads/main") and workflow["on"]["push"]["branches"] == [
        "main"
    ]
    assert ISSUER == "https://token.actions.githubusercontent.com"


def test_a_change_of_what_an_image_holds_makes_new_images() -> None:
    held = {
        line.removeprefix("!") for line in (CHECKOUT / ".dockerignore").read_text().splitlines() if line.startswith("!")
    }
    watched = {path.removesuffix("/**") for path in read(FORGE / "workflows/images.yaml")["on"]["push"]["paths"]}

    assert held - watched <= {"README.md"}, f"images.yaml does not look at {sorted(held - watched)}."


def test_a_release_takes_the_version_that_the_client_has() -> None:
    told = run(Path(CHECKOUT / ".venv/bin/uv"), "version", "--short", "--project", "client").strip()

    assert told == re.search(r'^version = "(.+)"', (CHECKOUT / "client/pyproject.toml").read_text(), re.MULTILINE)[1]  # type: ignore[index]
    script = next(
        step["run"] for where, step in steps() if where == "release.yaml, wheel" and "uv build" in step.get("run", "")
    )
    assert "uv version --short --project client" in script


def test_owners_and_updates_name_folders_that_exist() -> None:
    for line in (FORGE / "CODEOWNERS").read_text().splitlines():
        if line and not line.startswith("#"):
            assert (CHECKOUT / line.split()[0].strip("/")).exists(), f"CODEOWNERS: {line.split()[0]} is not there."
    for update in yaml.safe_load((FORGE / "dependabot.yml").read_text())["updates"]:
        for folder in update.get("directories", [update.get("directory")]):
            assert list(CHECKOUT.glob(folder.strip("/") or "*")), f"dependabot.yml: {folder} is not there."


def test_a_promotion_becomes_a_pull_request_that_shows_its_change(tmp_path: Path) -> None:
    origin, clone, programs = tmp_path / "origin.git", tmp_path / "clone", tmp_path / "bin"
    identity = {
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@b",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@b",
    }
    tags = clone / "charts/envs/staging/image-tags"
    programs.mkdir()
    (programs / "gh").write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\ncat > {tmp_path}/body\n')
    (programs / "gh").chmod(0o755)
    run("git", "init", "--quiet", "--bare", origin)
    run("git", "clone", "--quiet", origin, clone)
    tags.mkdir(parents=True)
    (tags / "tasks.yaml").write_text('image: {tag: "0.1.0"}\n')
    run("git", "-C", clone, "add", ".")
    run("git", "-C", clone, "commit", "--quiet", "-m", "Begin", env=identity)
    (tags / "tasks.yaml").write_text('image: {tag: "0.2.0"}\n')
    (tmp_path / "change.diff").write_text("+image: 0.2.0\n")
    script = [FORGE / "open-pull-request.sh", "promote-1", "Promote tasks to staging", tmp_path / "change.diff"]
    environment = {"PATH": f"{programs}:{os.environ['PATH']}"}

    run(*script, cwd=clone, env=environment)

    assert (tmp_path / "asked").read_text().split()[:6] == ["pr", "create", "--base", "main", "--head", "promote-1"]
    assert "+image: 0.2.0" in (tmp_path / "body").read_text()
    assert "0.2.0" in run("git", "-C", origin, "show", "promote-1:charts/envs/staging/image-tags/tasks.yaml")
    again = subprocess.run(
        script, cwd=clone, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert again.returncode == 1 and "Nothing to change" in again.stdout
