"""How an image moves on and comes back, and what is told of a release."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from argocd.promote import Refused, image_of, promote, services, set_image
from ops import release_notes
from runtime.layout import CHECKOUT
from runtime.processes import load_apps
from tests.deploy.rendering import ENVIRONMENTS, Release
from tests.deploy.tools import run, tool

DIGEST = "sha256:" + "a1" * 32
AUTHOR = {
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@example.com",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@example.com",
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files that say what every environment runs."""
    shutil.copytree(CHECKOUT / "charts/envs", tmp_path / "charts/envs")
    return tmp_path


def is_signed(_: str) -> bool:
    return True


def git(root: Path, *arguments: str) -> str:
    return run("git", "-C", root, *arguments, env=AUTHOR).strip()


def begin(root: Path) -> None:
    git(root, "init", "--quiet", "--initial-branch=main")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "-m", "Begin")


def test_every_service_has_an_image_in_every_environment() -> None:
    wanted = {app.name for app in load_apps()}
    for environment in ENVIRONMENTS:
        there = {path.stem for path in (CHECKOUT / "charts/envs" / environment / "image-tags").glob("*.yaml")}
        assert there == wanted, f"charts/envs/{environment}/image-tags differs by {there ^ wanted}."


@pytest.mark.ac("phase-v:C2.3")
def test_an_image_goes_from_dev_to_staging_to_production(checkout: Path) -> None:
    set_image(checkout, "dev", "tasks", "main-1a2b3c4", DIGEST)

    change = promote(checkout, ["tasks"], "dev", "staging")
    promote(checkout, ["tasks"], "staging", "prod", verify=is_signed)

    assert image_of(checkout, "prod", "tasks") == ("main-1a2b3c4", DIGEST)
    assert f'+image: {{tag: "main-1a2b3c4", digest: "{DIGEST}"}}' in change.splitlines()
    assert image_of(checkout, "prod", "users") == image_of(CHECKOUT, "prod", "users")


def test_a_promoted_image_is_what_the_chart_renders(checkout: Path) -> None:
    set_image(checkout, "prod", "tasks", "main-1a2b3c4", DIGEST)
    release = Release(chart="service", name="tasks", environment="prod", cloud="local")
    files = [str(path).replace(str(CHECKOUT / "charts/envs"), str(checkout / "charts/envs")) for path in release.values]
    values = [part for file in files for part in ("--values", file)]

    manifests = run(tool("helm"), "template", "tasks", CHECKOUT / "charts/service", *values)

    assert f"ghcr.io/isa-cloud/tasks:main-1a2b3c4@{DIGEST}" in manifests


def test_staging_cannot_be_skipped_and_nothing_goes_backwards(checkout: Path) -> None:
    for source, target in (("dev", "prod"), ("prod", "staging"), ("staging", "staging")):
        with pytest.raises(Refused, match=f"From {source} to {target} is no step"):
            promote(checkout, ["tasks"], source, target, verify=is_signed)


def test_production_takes_no_image_by_tag_alone(checkout: Path) -> None:
    set_image(checkout, "staging", "tasks", "0.2.0", "")

    with pytest.raises(Refused, match=r"tasks: staging runs 0\.2\.0 without a digest"):
        promote(checkout, ["tasks"], "staging", "prod", verify=is_signed)


def test_production_takes_all_services_or_none(checkout: Path) -> None:
    for name in ("tasks", "users"):
        set_image(checkout, "staging", name, "0.2.0", DIGEST)
    before = image_of(checkout, "prod", "tasks")

    with pytest.raises(Refused, match=r"users: .* is not signed"):
        promote(checkout, ["tasks", "users"], "staging", "prod", verify=lambda image: "/tasks@" in image)

    assert image_of(checkout, "prod", "tasks") == before


@pytest.mark.parametrize(
    ("tag", "digest", "message"),
    [
        ("a b", "", "is no tag"),
        ('x"}', "", "is no tag"),
        ("1", "sha256:abc", "is no digest"),
        ("1", "md5:" + "a" * 64, "is no digest"),
    ],
)
def test_what_is_no_image_is_refused(checkout: Path, tag: str, digest: str, message: str) -> None:
    with pytest.raises(Refused, match=message):
        set_image(checkout, "dev", "tasks", tag, digest)


def test_a_service_that_is_not_there_is_refused_with_those_that_are(checkout: Path) -> None:
    with pytest.raises(Refused, match=r"There is no service task: analytics, audit"):
        promote(checkout, ["task"], "dev", "staging")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tasks", "--to", "staging", "--tag", "x"], "Refused: A new image starts in dev"),
        (["tasks", "--to", "dev"], "Refused: dev gets what was built"),
        (["tasks", "--from", "dev", "--to", "prod"], "Refused: From dev to prod is no step"),
        (["--to", "prod"], "name a service, or --all"),
    ],
)
def test_the_command_says_what_to_do_instead(arguments: list[str], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        run(sys.executable, CHECKOUT / "argocd/promote.py", *arguments)


def test_the_signature_is_asked_of_cosign_by_digest_and_by_who_signed(checkout: Path, tmp_path: Path) -> None:
    (program := tmp_path / "cosign").write_text(
        f'#!/bin/sh\necho "$@" > {tmp_path}/asked\nexit "$(cat {tmp_path}/answer)"\n'
    )
    program.chmod(0o755)
    set_image(checkout, "staging", "tasks", "0.2.0", DIGEST)
    shutil.copytree(CHECKOUT / "argocd", checkout / "argocd", dirs_exist_ok=True)
    command = [sys.executable, checkout / "argocd/promote.py", "tasks", "--to", "prod"]
    path = {"PATH": f"{tmp_path}:/usr/bin:/bin"}

    (tmp_path / "answer").write_text("1")
    with pytest.raises(AssertionError, match=r"is not signed by https://github\.com/isa-cloud"):
        run(*command, env=path)
    (tmp_path / "answer").write_text("0")
    run(*command, env=path)

    asked = (tmp_path / "asked").read_text()
    assert f"ghcr.io/isa-cloud/tasks@{DIGEST}" in asked and "--certificate-identity " in asked
    assert image_of(checkout, "prod", "tasks") == ("0.2.0", DIGEST)


@pytest.mark.ac("phase-v:C2.3")
def test_a_revert_brings_back_what_ran_before(checkout: Path) -> None:
    begin(checkout)
    ran = {name: image_of(checkout, "prod", name) for name in services(checkout)}
    for name in services(checkout):
        set_image(checkout, "staging", name, "0.2.0", DIGEST)
    promote(checkout, services(checkout), "staging", "prod", verify=is_signed)
    git(checkout, "commit", "--quiet", "--all", "-m", "Promote all to prod")
    assert image_of(checkout, "prod", "tasks") == ("0.2.0", DIGEST)

    git(checkout, "revert", "--no-edit", "HEAD")

    assert {name: image_of(checkout, "prod", name) for name in services(checkout)} == ran


CHANGELOG = """# Changelog

## [Unreleased]

- Not yet.

## [0.2.0] - 2026-12-01

### Added

- Wings, as [the guide](docs/guides/wings.md) and [others](https://example.com/a) say.

## [0.1.0] - 2026-11-21

- Legs.
"""


@pytest.fixture
def history(checkout: Path) -> Path:
    """A repository with two releases and a commit after them."""
    (checkout / "CHANGELOG.md").write_text(CHANGELOG)
    begin(checkout)
    git(checkout, "tag", "v0.1.0")
    git(checkout, "commit", "--quiet", "--allow-empty", "-m", "Grow wings")
    git(checkout, "tag", "v0.2.0")
    git(checkout, "commit", "--quiet", "--allow-empty", "-m", "Grow fins")
    return checkout


@pytest.mark.ac("phase-v:C2.3")
def test_notes_tell_of_their_release_and_of_no_other(history: Path) -> None:
    notes = release_notes.notes(history, "0.2.0")

    assert "Wings" in notes and "Legs" not in notes and "Not yet" not in notes
    assert "- Grow wings (" in notes and "Begin" not in notes and "Grow fins" not in notes
    assert "](https://github.com/isa-cloud/isa-cloud/blob/v0.2.0/docs/guides/wings.md)" in notes
    assert "](https://example.com/a)" in notes
    assert notes.count("ghcr.io/isa-cloud/") == len(services(history))


def test_the_first_release_tells_of_every_commit(history: Path) -> None:
    assert release_notes.commits(history, "0.1.0")[0].startswith("Begin (")


def test_a_version_that_the_changelog_does_not_know_is_refused(history: Path) -> None:
    with pytest.raises(release_notes.Refused, match=r"CHANGELOG\.md says nothing of 0\.3\.0"):
        release_notes.notes(history, "0.3.0")
