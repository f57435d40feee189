"""Google's modules are valid by the schema of google 6.50.0, and pass their tests against a mocked Google.

Terraform itself reads them; what stands behind it is `google_provider`, which knows the schema and has none of the real
provider's validators: a word that Google does not allow passes here.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.layout import layout_from_environment
from tests.deploy.google_schema import GoogleSchema
from tests.deploy.terraform_folders import ROOT, check, copy_to, folders
from tests.deploy.tools import HOSTS, MACHINE, engines, tool

VERSION = "6.50.0"
HERE = Path(__file__).resolve().parent
USED = re.compile(r'^(resource|data) "(google_\w+)"', re.MULTILINE)
NEGATIVE = {
    "an unknown resource": ('resource "google_storage_basket" "x" {}', "Invalid resource type"),
    "an unknown argument": ('bucket_name = "x"', "Unsupported argument"),
    "a missing argument": ("", "Missing required argument"),
    "a block written as an argument": ('location = "eu"\nversioning = true', "Unsupported argument"),
    "an argument written as a block": ('location = "eu"\nstorage_class {}', "Unsupported block type"),
    "a missing block": (
        'location = "eu"\nlifecycle_rule {\n  action {\n    type = "Delete"\n  }\n}',
        "Insufficient condition blocks",
    ),
    "a block too many": (
        'location = "eu"\nversioning {\n  enabled = true\n}\nversioning {\n  enabled = true\n}',
        "Too many versioning blocks",
    ),
    "an unknown argument of a block": ('location = "eu"\nversioning {\n  enable = true\n}', "Unsupported argument"),
    "a value of another type": ('location = "eu"\nforce_destroy = "perhaps"', "a bool is required"),
    "an attribute that nothing has": ("location = google_storage_bucket.other.place", "Unsupported attribute"),
    "a resource that is not declared": ("location = google_kms_key_ring.x.id", "Reference to undeclared resource"),
}
"""What is wrong -> what a bucket holds then (or a whole resource), and what Terraform must say."""


@pytest.fixture(scope="session")
def schema() -> bytes:
    """The schema of every type that our folders use, in the form in which a provider hands it to Terraform."""
    texts = [path.read_text() for path in sorted(ROOT.rglob("*.tf")) if path.relative_to(ROOT).parts[1] == "gcp"]
    used = {found for text in texts for found in USED.findall(text)}
    package = engines().folder("google")
    assert package.is_dir(), "The schema of Terraform's google provider is not there yet: run `make setup-tests`."
    identity = hashlib.sha256(f"{package.name} {sorted(used)}".encode() + (HERE / "google_schema.py").read_bytes())
    kept = layout_from_environment().cache / "terraform" / "google" / identity.hexdigest()
    if not kept.exists():
        names = {kind: {name for k, name in used if k == kind} for kind in ("resource", "data")}
        made = GoogleSchema(package).response(names["resource"], names["data"])
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(made)
    return kept.read_bytes()


@pytest.fixture(scope="session")
def google(schema: bytes, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which `terraform init` finds our stand-in as google 6.50.0."""
    root = tmp_path_factory.mktemp("mirror")
    for host in HOSTS:
        place = root / host / "hashicorp" / "google" / VERSION / MACHINE
        place.mkdir(parents=True)
        (place / "google.schema").write_bytes(schema)
        program = place / f"terraform-provider-google_v{VERSION}"
        program.write_text(f"#!{sys.executable}\n{(HERE / 'google_provider.py').read_text()}")
        program.chmod(0o755)
    settings = root / "terraformrc"
    settings.write_text(f'provider_installation {{\n  filesystem_mirror {{\n    path = "{root}"\n  }}\n}}\n')
    return {"TF_CLI_CONFIG_FILE": str(settings), "TF_IN_AUTOMATION": "1", "CHECKPOINT_DISABLE": "1"}


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of terraform/ to work in."""
    return copy_to(tmp_path_factory.mktemp("terraform"))


@pytest.mark.ac("phase-v:C1.2")
@pytest.mark.parametrize("folder", folders("gcp"))
def test_folder_is_valid_by_the_schema_and_passes_its_tests(
    folder: str, tree: Path, google: dict[str, str], schema: bytes
) -> None:
    stand_in = (HERE / "google_provider.py").read_bytes()

    check(folder, tree, google, also=hashlib.sha256(schema + stand_in).hexdigest())


@pytest.mark.parametrize("wrong", NEGATIVE)
def test_the_schema_check_finds(wrong: str, tmp_path: Path, google: dict[str, str]) -> None:
    held, expected = NEGATIVE[wrong]
    bucket = (
        held if held.startswith("resource") else f'resource "google_storage_bucket" "x" {{\n  name = "x"\n{held}\n}}'
    )
    other = 'resource "google_storage_bucket" "other" {\n  name     = "y"\n  location = "eu"\n}'
    (tmp_path / "main.tf").write_text(f"{(ROOT / 'modules/gcp/redis/versions.tf').read_text()}\n{bucket}\n{other}\n")

    said = [
        subprocess.run(
            [tool("terraform"), *command, "-no-color"],
            cwd=tmp_path,
            env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), **google},
            capture_output=True,
            text=True,
            check=False,
        )
        for command in (["init", "-backend=false"], ["validate"])
    ]

    assert said[0].returncode == 0, said[0].stderr
    assert said[1].returncode != 0 and expected in said[1].stderr, said[1].stdout + said[1].stderr
