"""Generate the set's secrets at its first start, and hand each container its own part. What exists is never changed."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

from runtime import nats, redis
from runtime.layout import Layout, layout_from_environment
from runtime.postgres import databases_script
from runtime.processes import load_apps
from runtime.secrets import ensure_secrets, ensure_tokens, write_private

STATES = Path("/rooms")
POSTGRES = Path("/run/isa/postgres")
REGISTRY = Path("/run/isa/registry")
REDIS = Path("/run/isa/redis")
NATS = Path("/run/isa/nats")
MINIO = Path("/run/isa/minio")
SENTRY = Path("/run/isa/sentry")
TRUST = Path("/run/isa/trust")
USES = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
    "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip
DAYS = timedelta(days=3650)


def make_secrets() -> None:
    """Fill the volumes that this container has mounted."""
    layout = layout_from_environment()
    layout.run.mkdir(parents=True, exist_ok=True, mode=0o700)
    apps = [app.name for app in load_apps()]
    secrets = ensure_secrets(layout, apps)
    secrets["preferences-connection-string"] = (
        f"host=postgres port=5432 user=preferences_owner password={secrets['postgres-preferences-owner']} "
        "dbname=preferences sslmode=disable application_name=preferences"
    )
    write_private(layout.secrets, json.dumps(secrets, indent=2, sort_keys=True))
    hand_out_tokens(layout, ensure_tokens(layout, apps))
    write_private(POSTGRES / "password", secrets["postgres-superuser"])
    write_private(POSTGRES / "pgpass", f"*:*:*:isa:{secrets['postgres-superuser']}")
    write_private(POSTGRES / "databases.sql", databases_script(secrets))
    write_private(
        REGISTRY / "registry.properties", f"apicurio.datasource.password={secrets['postgres-registry-owner']}"
    )
    make_logins(secrets)
    make_authority()
    sys.stdout.write(f"{len(secrets)} secrets, tokens of {len(apps)} rooms.\n")


def make_logins(secrets: Mapping[str, str]) -> None:
    """What Redis, NATS and MinIO are configured by, each in a volume of its own."""
    password = secrets["redis-password"]
    write_private(REDIS / "redis.conf", redis.document(bind="*", port=6379, folder="/data", password=password))
    write_private(REDIS / "ping", f"AUTH {password}\nPING\nQUIT")
    password = secrets["nats-password"]
    text = nats.document(listen="0.0.0.0:4222", monitor="127.0.0.1:8222", folder="/data", password=password)
    write_private(NATS / "nats.conf", text)
    write_private(
        MINIO / "login.env",
        f"MINIO_ROOT_USER={secrets['minio-access-key']}\nMINIO_ROOT_PASSWORD={secrets['minio-secret-key']}",
    )


def make_authority() -> None:
    """The authority behind the sidecars' identities: its key for sentry alone, its certificate for everybody."""
    if not (SENTRY / "issuer.key").exists():
        root, issuer = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
        write_private(SENTRY / "ca.crt", certificate("localhost", root, "localhost", root))
        write_private(
            SENTRY / "issuer.crt", certificate("spiffe://localhost/ns/default/dapr-sentry", issuer, "localhost", root)
        )
        form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        write_private(SENTRY / "issuer.key", issuer.private_bytes(serialization.Encoding.PEM, *form).decode())
    (TRUST / "ca.crt").write_bytes((SENTRY / "ca.crt").read_bytes())


def certificate(subject: str, key: Ed25519PrivateKey, issuer: str, signer: Ed25519PrivateKey) -> str:
    """A certificate that may sign others, as sentry would make it."""
    now = datetime.now(UTC)
    names = [x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, name)]) for name in (subject, issuer)]
    usage = dict.fromkeys(USES, False) | {"key_cert_sign": True, "crl_sign": True}
    made = (
        x509.CertificateBuilder(subject_name=names[0], issuer_name=names[1])
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=15))
        .not_valid_after(now + DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, None)
    )
    return made.public_bytes(serialization.Encoding.PEM).decode()


def hand_out_tokens(layout: Layout, tokens: Mapping[str, Mapping[str, str]]) -> None:
    """A room and its sidecar share two tokens, which no other room sees."""
    folder = layout.home / "tokens"
    folder.mkdir(exist_ok=True, mode=0o700)
    for app, pair in tokens.items():
        text = "".join(f"export {name}={value}\n" for name, value in pair.items())
        write_private(folder / f"{app}.env", text)
        write_private(STATES / app / "token.env", text)
        (STATES / app / "spool").mkdir(exist_ok=True, mode=0o700)


if __name__ == "__main__":
    make_secrets()
