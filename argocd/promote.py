"""Move an image from an environment to the next: dev, staging, prod.

Writes charts/envs/<env>/image-tags and prints the change.

    python argocd/promote.py tasks users --to staging        # what runs in dev
    python argocd/promote.py --all --to prod                 # what runs in staging
    python argocd/promote.py tasks --to dev --tag main-1a2b3c4 --digest sha256:...     # what was just built

A pull request carries it from there; reverting that is the way back. Production takes only what staging runs, by
digest, and signed by the workflow that builds images.
"""

from __future__ import annotations

import argparse
import difflib
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml

ENVIRONMENTS = ("dev", "staging", "prod")
REGISTRY = "ghcr.io/isa-cloud"
SIGNER = "https://github.com/isa-cloud/isa-cloud/.github/workflows/images.yaml@refs/heads/main"
ISSUER = "https://token.actions.githubusercontent.com"
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


class Refused(Exception):
    """It may not go there; the message says what to do."""


def is_signed(image: str) -> bool:
    """Whether our workflow signed an image; cosign asks the public log."""
    command = ["cosign", "verify", "--certificate-identity", SIGNER, "--certificate-oidc-issuer", ISSUER, image]
    try:
        return subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode == 0  # noqa: S603 - fixed program
    except FileNotFoundError:
        raise Refused("cosign is not on PATH, and production takes only images whose signature it checked.") from None


def tag_file(root: Path, environment: str, service: str) -> Path:
    """Where it is written which image of a service an environment runs."""
    path = root / "charts/envs" / environment / "image-tags" / f"{service}.yaml"
    if not path.exists():
        known = ", ".join(services(root))
        raise Refused(f"There is no service {service}: {known}.")
    return path


def services(root: Path) -> list[str]:
    """Every service that has an image."""
    return sorted(path.stem for path in (root / "charts/envs/dev/image-tags").glob("*.yaml"))


def image_of(root: Path, environment: str, service: str) -> tuple[str, str]:
    """Tag and digest that an environment runs; without a digest, the empty string."""
    image = yaml.safe_load(tag_file(root, environment, service).read_text())["image"]
    return str(image["tag"]), str(image.get("digest", ""))


def set_image(root: Path, environment: str, service: str, tag: str, digest: str) -> str:
    """Write an image for an environment and return the change as a diff, empty when it is there already."""
    if not TAG.fullmatch(tag):
        raise Refused(f"{service}: {tag!r} is no tag of an image.")
    if digest and not DIGEST.fullmatch(digest):
        raise Refused(f"{service}: {digest!r} is no digest; it looks like sha256: and 64 hexadecimal digits.")
    path = tag_file(root, environment, service)
    before = path.read_text()
    comments = [line for line in before.splitlines() if line.startswith("#")]
    image = f'image: {{tag: "{tag}", digest: "{digest}"}}' if digest else f'image: {{tag: "{tag}"}}'
    after = "\n".join([*comments, image]) + "\n"
    path.write_text(after)
    name = path.relative_to(root)
    lines = difflib.unified_diff(before.splitlines(True), after.splitlines(True), f"a/{name}", f"b/{name}")
    return "".join(lines)


def promote(
    root: Path, names: Sequence[str], source: str, target: str, *, verify: Callable[[str], bool] = is_signed
) -> str:
    """Give an environment what the one before it runs; all of the services, or none."""
    if ENVIRONMENTS.index(target) - ENVIRONMENTS.index(source) != 1:
        way = " -> ".join(ENVIRONMENTS)
        raise Refused(f"From {source} to {target} is no step of {way}: promote to the one between first.")
    images = {name: image_of(root, source, name) for name in names}
    if target == "prod":
        for name, (tag, digest) in images.items():
            if not digest:
                raise Refused(f"{name}: staging runs {tag} without a digest; build it by the workflow `images` first.")
            if not verify(f"{REGISTRY}/{name}@{digest}"):
                raise Refused(f"{name}: {digest} is not signed by {SIGNER}.")
    return "".join(set_image(root, target, name, *image) for name, image in images.items())


def main() -> None:
    """Read the arguments, write the files, print the change."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("services", nargs="*", metavar="SERVICE")
    parser.add_argument("--all", action="store_true", help="every service")
    parser.add_argument("--to", choices=ENVIRONMENTS, required=True)
    parser.add_argument(
        "--from", dest="source", choices=ENVIRONMENTS, help="the environment before, which is what it may be"
    )
    parser.add_argument("--tag", help="of an image that was just built; only --to dev")
    parser.add_argument("--digest", default="", help="of that image")
    arguments = parser.parse_args()
    root = Path(__file__).resolve().parents[1]
    names = services(root) if arguments.all else arguments.services
    if not names:
        parser.error("name a service, or --all")
    try:
        if arguments.tag:
            if arguments.to != "dev":
                raise Refused("A new image starts in dev; the others get what the environment before runs.")
            change = "".join(set_image(root, "dev", name, arguments.tag, arguments.digest) for name in names)
        elif arguments.to == "dev":
            raise Refused("dev gets what was built: name it by --tag and --digest.")
        else:
            before = ENVIRONMENTS[ENVIRONMENTS.index(arguments.to) - 1]
            change = promote(root, names, arguments.source or before, arguments.to)
    except Refused as refused:
        sys.exit(f"Refused: {refused}")
    sys.stdout.write(change or "Nothing to change.\n")


if __name__ == "__main__":
    main()
