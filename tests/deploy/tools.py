"""The programs that look at charts/, argocd/ and terraform/: those that `make setup-tests` puts into the cache."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock

from runtime.engines import Engines, load_engines, on_path
from runtime.layout import CHECKOUT, layout_from_environment

PROGRAMS = {
    "helm": ("helm", "helm"),
    "helm4": ("helm4", "helm"),
    "helm-unittest": ("helm-unittest", "helm-unittest"),
    "kubeconform": ("kubeconform", "kubeconform"),
    "kustomize": ("kustomize", "kustomize"),
    "promtool": ("prometheus", "promtool"),
    "amtool": ("amtool", "amtool"),
    "argocd": ("argocd", "cmd"),
    "appsets": ("argocd", "appsets"),
    "actionlint": ("actionlint", "actionlint"),
    "checkov": ("checkov", "checkov"),
    "moto_server": ("moto", "moto_server"),
    "aws": ("moto", "aws"),
}
"""Name -> engine of engines.toml, and its file in the engine's `bin`."""
MIRRORS = ("~/.terraform.d/plugins", "/usr/local/share/terraform/plugins", "/usr/share/terraform/plugins", "/opt/*")
"""Where machines that do not reach the provider registry keep providers; ISA_TERRAFORM_MIRROR names another."""
MACHINE = "linux_" + {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
HOSTS = ("registry.terraform.io", "registry.opentofu.org")


def engines() -> Engines:
    """What the cache holds."""
    return Engines(layout_from_environment(), load_engines())


def tool(name: str) -> Path:
    """The path of a program; it fails with what to do where the program is not there."""
    if name == "terraform":
        return terraform()
    engine, file = PROGRAMS[name]
    path = engines().binary(engine, file)
    assert path.exists(), f"{name} is not there yet: run `make setup-tests`."
    return path


@cache
def terraform() -> Path:
    """Terraform of PATH where it is new enough, else OpenTofu."""
    found = on_path(load_engines()["opentofu"])
    path = Path(found) if found else engines().binary("opentofu", "tofu")
    assert path.exists(), "There is no Terraform 1.11 or newer on PATH and no OpenTofu yet: run `make setup-tests`."
    return path


def run(
    *command: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None, given: str | None = None
) -> str:
    """Run a program to its end and return what it printed; a failure shows its last words."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd or CHECKOUT,
        env={**os.environ, **(env or {})},
        input=given,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout[-6000:]}{done.stderr[-6000:]}"
    return done.stdout


def documents(text: str) -> list[dict[str, Any]]:
    """The documents of a YAML text, without the empty ones."""
    return [each for each in yaml.load_all(text, Loader=yaml.CSafeLoader) if each]


def mirror_of(provider: str) -> Path | None:
    """A folder of this machine that holds `<host>/hashicorp/<provider>`; none where there is no such mirror."""
    own = os.environ.get("ISA_TERRAFORM_MIRROR")
    for pattern in (own,) if own else MIRRORS:
        root = Path(pattern).expanduser()
        for folder in sorted(root.parent.glob(root.name)):
            if (folder / HOSTS[0] / "hashicorp" / provider).is_dir():
                return folder
    return None


def providers() -> Path:
    """A filesystem mirror for Terraform: azurerm as we built it, and what this machine's own mirrors hold."""
    azurerm = load_engines()["azurerm"]
    binary = engines().binary("azurerm", "terraform-provider-azurerm")
    assert binary.exists(), "Terraform's azurerm provider is not there yet: run `make setup-tests`."
    root = layout_from_environment().cache / "terraform" / azurerm.key
    version = azurerm.pins["provider"]
    with FileLock(str(root.parent.parent / "terraform.lock")):
        for host in HOSTS:
            target = root / host / "hashicorp" / "azurerm" / version / MACHINE
            target.mkdir(parents=True, exist_ok=True)
            link = target / f"terraform-provider-azurerm_v{version}"
            if not link.exists():
                shutil.copyfile(binary, link)
                link.chmod(0o755)
            found = mirror_of("aws")
            for package in (found / HOSTS[0] / "hashicorp" / "aws").glob("*/*") if found is not None else ():
                aws = root / host / "hashicorp" / "aws" / package.parent.name / package.name
                aws.parent.mkdir(parents=True, exist_ok=True)
                if not aws.exists():
                    aws.symlink_to(package)  # Terraform follows a link to a package, and none above it
    return root


@cache
def terraform_environment() -> dict[str, str]:
    """The environment in which `terraform init` finds every provider: the mirror first, the registry for the rest."""
    root = providers()
    held = sorted(path.name for path in (root / HOSTS[0] / "hashicorp").iterdir())
    names = ", ".join(f'"{host}/hashicorp/{name}"' for host in HOSTS for name in held)
    path = root / "terraformrc"
    path.write_text(
        "provider_installation {\n"
        f'  filesystem_mirror {{\n    path    = "{root}"\n    include = [{names}]\n  }}\n'
        f"  direct {{\n    exclude = [{names}]\n  }}\n"
        "}\n"
    )
    return {"TF_CLI_CONFIG_FILE": str(path), "TF_IN_AUTOMATION": "1", "CHECKPOINT_DISABLE": "1"}
