"""Where the stores are, and what opens them: by the environment, else by the set on this machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cli.recovery.folder import RecoveryError
from runtime.environment import engine_environment
from runtime.layout import Layout
from runtime.secrets import load_secrets


@dataclass(frozen=True, slots=True)
class Place:
    """Addresses and secrets of the stores."""

    addresses: Mapping[str, str]
    secrets: Mapping[str, str]

    def secret(self, name: str) -> str:
        """A secret: of the environment (`nats-password` is NATS_PASSWORD), else of the secrets file."""
        variable = name.upper().replace("-", "_")
        if value := os.environ.get(variable) or self.secrets.get(name):
            return value
        raise RecoveryError(f"There is no secret {name}: set {variable}, or ISA_SECRETS_FILE to a file that has it.")

    def __getitem__(self, name: str) -> str:
        return self.addresses[name]


def place_of(layout: Layout) -> Place:
    """Where the environment says, else where the set of this layout has them."""
    addresses = {**os.environ, **engine_environment(layout)}
    return Place(addresses, load_secrets(Path(addresses["ISA_SECRETS_FILE"])))
