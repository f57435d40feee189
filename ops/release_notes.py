"""Print the notes of a release: what CHANGELOG.md says of it, the images, and the commits since the release before.

    python ops/release_notes.py 0.2.0

The changelog is for who uses the platform and the list of commits for who changes it; a version that the changelog
does not know is refused.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
LINKS = re.compile(r"\]\((?!https?://)([^)]+)\)")


class Refused(Exception):
    """There are no notes to write; the message says what to do."""


def section(changelog: str, version: str) -> str:
    """The text of a version in a changelog of the form of Keep a Changelog."""
    found = re.search(rf"^## \[{re.escape(version)}\][^\n]*\n(.*?)(?=^## \[|\Z)", changelog, re.MULTILINE | re.DOTALL)
    if found is None or not found[1].strip():
        raise Refused(f"CHANGELOG.md says nothing of {version}: give [Unreleased] its name first.")
    return found[1].strip()


def git(root: Path, *arguments: str) -> str:
    """What git answers."""
    done = subprocess.run(["git", "-C", root, *arguments], capture_output=True, text=True, check=False)  # noqa: S603, S607
    if done.returncode:
        raise Refused(done.stderr.strip())
    return done.stdout


def commits(root: Path, version: str) -> list[str]:
    """The subjects since the tag before, newest first; merges are nobody's news."""
    end = f"v{version}" if git(root, "tag", "--list", f"v{version}") else "HEAD"
    tags = git(root, "tag", "--list", "v*", "--sort=-version:refname", "--merged", end).split()
    before = next((tag for tag in tags if tag != f"v{version}"), None)
    span = f"{before}..{end}" if before else end
    return git(root, "log", "--no-merges", "--format=%s (%h)", span).splitlines()


def images(root: Path) -> list[str]:
    """What production runs at this commit."""
    lines = []
    for path in sorted((root / "charts/envs/prod/image-tags").glob("*.yaml")):
        image = yaml.safe_load(path.read_text())["image"]
        digest = f"@{image['digest']}" if image.get("digest") else ""
        lines.append(f"ghcr.io/isa-cloud/{path.stem}:{image['tag']}{digest}")
    return lines


def notes(root: Path, version: str) -> str:
    """The whole page, in Markdown."""
    told = section((root / "CHANGELOG.md").read_text(), version)
    told = LINKS.sub(rf"](https://github.com/isa-cloud/isa-cloud/blob/v{version}/\1)", told)
    return "\n".join(
        [
            f"# isA Cloud {version}",
            "",
            told,
            "",
            "## Images of production",
            "",
            *(f"- `{image}`" for image in images(root)),
            "",
            "## Commits",
            "",
            *(f"- {commit}" for commit in commits(root, version)),
            "",
        ]
    )


def main() -> None:
    """Read the version, print the notes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("version", help="without the v of its tag")
    arguments = parser.parse_args()
    try:
        sys.stdout.write(notes(ROOT, arguments.version))
    except Refused as refused:
        sys.exit(f"Refused: {refused}")


if __name__ == "__main__":
    main()
