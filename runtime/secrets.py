"""Secrets of a development set: generated at the first start, kept in one file that only its owner reads."""

from __future__ import annotations

import base64
import json
import os
import secrets
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from runtime.layout import Layout

ROOMS = ("users", "tasks", "notifications", "analytics", "audit")
DATABASES = (*ROOMS, "preferences", "registry")
ROLES = ("owner", "app", "system")


def ensure_secrets(layout: Layout, app_ids: list[str]) -> dict[str, str]:
    """The secrets of this set; what is missing is generated, what exists is never changed."""
    known = load_secrets(layout.secrets)
    missing = {name: value for name, value in generate(layout, app_ids).items() if name not in known}
    if "workload-signing-private" in known:
        missing.pop("workload-signing-public", None)
    known.update(missing)
    known["preferences-connection-string"] = preferences_connection(layout, known["postgres-preferences-owner"])
    known["smtp-password"] = os.environ.get("SMTP_PASSWORD", known["smtp-password"])
    write_private(layout.secrets, json.dumps(known, indent=2, sort_keys=True))
    return known


def generate(layout: Layout, app_ids: list[str]) -> dict[str, str]:
    """A fresh set of every secret that the set knows."""
    private = Ed25519PrivateKey.generate()
    private_pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public_pem = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return {
        "postgres-superuser": token(),
        "postgres-tenants-admin": token(),
        **{f"postgres-{database}-{role}": token() for database in DATABASES for role in ROLES},
        "redis-password": token(),
        "nats-password": token(),
        "minio-access-key": "isa",
        "minio-secret-key": token(),
        **{f"workload-client-{app_id}": token() for app_id in app_ids},
        "workload-signing-private": private_pem.decode(),
        "workload-signing-public": public_pem.decode(),
        "users-master-key": key(),
        "postgres-tenant-master-key": key(),
        "preferences-encryption-key": secrets.token_hex(32),
        "smtp-password": "",
    }


def preferences_connection(layout: Layout, password: str) -> str:
    """Where Dapr's state store finds its database; follows the port, so it is written anew at each start."""
    return (
        f"host=127.0.0.1 port={layout.engine_port('postgres')} user=preferences_owner password={password} "
        "dbname=preferences sslmode=disable application_name=preferences"
    )


def ensure_tokens(layout: Layout, app_ids: list[str]) -> dict[str, dict[str, str]]:
    """The two API tokens of each app and its sidecar: one app's token opens no other app's sidecar."""
    path = layout.run / "tokens.json"
    known: dict[str, dict[str, str]] = json.loads(path.read_text()) if path.exists() else {}
    for app_id in app_ids:
        known.setdefault(app_id, {"DAPR_API_TOKEN": token(), "APP_API_TOKEN": token()})
    write_private(path, json.dumps(known, indent=2, sort_keys=True))
    return known


def load_secrets(path: Path) -> dict[str, str]:
    """The secrets of a file, or of a folder with a file each as Kubernetes mounts them; none where nothing is yet."""
    if not path.exists():
        return {}
    if path.is_dir():
        return {each.name: each.read_text().removesuffix("\n") for each in path.iterdir() if each.is_file()}
    known: dict[str, str] = json.loads(path.read_text())
    return known


def write_private(path: Path, text: str) -> None:
    """Replace a file in one step, readable by its owner only from its first byte on."""
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text + "\n")
    temporary.replace(path)


def token() -> str:
    """48 hexadecimal digits."""
    return secrets.token_hex(24)


def key() -> str:
    """32 bytes, base64."""
    return base64.b64encode(secrets.token_bytes(32)).decode()
