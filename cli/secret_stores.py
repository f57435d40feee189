"""The secret stores of three clouds, by each cloud's own program: values go in by standard input, which nobody sees."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from runtime.redis import LOGIN


class StoreError(Exception):
    """A cloud's program failed, or is not there."""


class Store(Protocol):
    """Where an environment's secrets are."""

    def filled(self, names: Iterable[str]) -> set[str]:
        """Return which of these have a value."""
        ...

    def put(self, name: str, value: str) -> None:
        """Give a secret its first value."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretsManager:
    """AWS; `place` is the region. Terraform made the entries, and a login of Redis that is off: it has no password."""

    place: str
    prefix: str

    def filled(self, names: Iterable[str]) -> set[str]:
        """Ask once for all: an entry without a version has no value."""
        command = ("list-secrets", "--filters", f"Key=name,Values={self.prefix}", "--output", "json")
        entries = json.loads(self._aws("secretsmanager", *command))["SecretList"]
        with_value = {entry["Name"] for entry in entries if entry.get("SecretVersionsToStages")}
        return {name for name in names if self.prefix + name in with_value}

    def put(self, name: str, value: str) -> None:
        """Write the value; Redis learns its password first: a failure between the two is mended by the next run."""
        if name == "redis-password":
            user = ("--user-id", f"{self.prefix}default", "--access-string", f"on {LOGIN}")
            mode = json.dumps({"Type": "password", "Passwords": [value]})
            self._aws("elasticache", "modify-user", *user, "--authentication-mode", "file:///dev/stdin", given=mode)
        entry = ("--secret-id", self.prefix + name, "--secret-string", "file:///dev/stdin")
        self._aws("secretsmanager", "put-secret-value", *entry, given=value)

    def _aws(self, *command: str, given: str = "") -> str:
        return run("aws", "--region", self.place, *command, given=given)


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretManager:
    """Google Cloud; `place` is the project. Terraform made the entries."""

    place: str
    prefix: str

    def filled(self, names: Iterable[str]) -> set[str]:
        """Ask each for an enabled version."""
        return {
            name for name in names if self._versions("list", name, "--filter=state=ENABLED", "--format=value(name)")
        }

    def put(self, name: str, value: str) -> None:
        """Add the first version."""
        self._versions("add", name, "--data-file=-", given=value)

    def _versions(self, verb: str, name: str, *options: str, given: str = "") -> str:
        command = ("secrets", "versions", verb, self.prefix + name, f"--project={self.place}", *options)
        return run("gcloud", *command, given=given).strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyVault:
    """Azure; `place` is the vault's URL. An entry begins with its value."""

    place: str
    prefix: str

    def filled(self, names: Iterable[str]) -> set[str]:
        """Ask once for all: what is there has a value."""
        there = set(json.loads(self._az("list", "--query", "[].name", "--output", "json")))
        return {name for name in names if self.prefix + name in there}

    def put(self, name: str, value: str) -> None:
        """Make the entry with its value."""
        self._az("set", "--name", self.prefix + name, "--file", "/dev/stdin", "--encoding", "utf-8", given=value)

    def _az(self, verb: str, *options: str, given: str = "") -> str:
        vault = self.place.removeprefix("https://").split(".", 1)[0]
        return run("az", "keyvault", "secret", verb, "--vault-name", vault, *options, given=given)


STORES: Mapping[str, type[SecretsManager] | type[SecretManager] | type[KeyVault]] = {
    "aws": SecretsManager,
    "gcp": SecretManager,
    "azure": KeyVault,
}


def run(*command: str, given: str) -> str:
    """Run a cloud's program; what it says when it fails is the error."""
    try:
        done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise StoreError(f"`{command[0]}` is not on PATH: install the cloud's own program and log in.") from None
    if done.returncode != 0:
        raise StoreError(f"{' '.join(command[:4])} failed: {done.stderr.strip()}")
    return done.stdout
