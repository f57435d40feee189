"""kubectl, with what its JSON says as Python values."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.cluster.machine import ClusterError, execute

Manifest = Mapping[str, Any]


@dataclass(frozen=True)
class Kubectl:
    """Speaks to one cluster as one user."""

    program: Path
    kubeconfig: Path

    def run(self, *arguments: str, given: bytes | None = None, timeout: float = 120) -> str:
        """Run `kubectl ...` and return what it printed."""
        return execute([self.program, "--kubeconfig", self.kubeconfig, *arguments], given=given, timeout=timeout)

    def get(self, kind: str, name: str = "", *, namespace: str = "", selector: str = "") -> Any:
        """One object, or the list of all when it has no name."""
        where = ["--namespace", namespace] if namespace else ["--all-namespaces"] if not name else []
        chosen = ["--selector", selector] if selector else []
        found = json.loads(self.run("get", kind, *([name] if name else []), *where, *chosen, "--output", "json"))
        return found if name else found["items"]

    def find(self, kind: str, name: str, *, namespace: str = "") -> Any | None:
        """An object, or none."""
        with contextlib.suppress(ClusterError):
            return self.get(kind, name, namespace=namespace)
        return None

    def apply(self, documents: Iterable[Manifest] | str | Path, *, dry_run: bool = False) -> str:
        """Server-side apply, as ArgoCD does it."""
        text = (
            documents.read_text()
            if isinstance(documents, Path)
            else documents
            if isinstance(documents, str)
            else yaml.safe_dump_all(documents)
        )
        flags = ["--dry-run=server"] if dry_run else []
        return self.run(
            "apply", "--server-side", "--force-conflicts", *flags, "--filename", "-", given=text.encode(), timeout=300
        )

    def until(
        self, what: str, is_true: Callable[[Any], bool], kind: str, name: str, *, namespace: str, within: float = 300
    ) -> Any:
        """Wait for an object to be as it should, and return it."""
        end = time.monotonic() + within
        while True:
            found = self.find(kind, name, namespace=namespace)
            if found is not None and is_true(found):
                return found
            if time.monotonic() > end:
                status = json.dumps((found or {}).get("status"), indent=1)[:3000]
                raise ClusterError(f"{kind}/{name} in {namespace}: {what} not within {within:.0f} s. {status}")
            time.sleep(0.5)

    def rolled_out(self, kind: str, name: str, *, namespace: str, within: float = 300) -> None:
        """Wait for a workload's pods."""
        self.run(
            "rollout", "status", f"{kind}/{name}", "--namespace", namespace, f"--timeout={within:.0f}s",
            timeout=within + 30,
        )  # fmt: skip
