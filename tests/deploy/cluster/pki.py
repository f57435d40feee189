"""The certificates and kubeconfigs of a cluster of one node."""

from __future__ import annotations

import base64
import ipaddress
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

VALID_FOR = timedelta(days=7)


@dataclass(frozen=True)
class Authority:
    """Signs certificates into its folder: `<name>.crt` and `<name>.key`."""

    folder: Path
    name: str

    def create(self) -> None:
        """Make the authority's own key and certificate, once."""
        if self.path("crt").exists():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"isa-cluster-{self.name}")])
        certificate = (
            _builder(subject, subject, key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_usage(signs=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        _write(self.path("key"), _pem(key))
        self.path("crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(
        self, name: str, *, user: str, groups: Sequence[str] = (), hosts: Sequence[str] = (), filename: str = ""
    ) -> Path:
        """A certificate for a client and, where `hosts` are named, a server; the path without its suffix."""
        stem = self.folder / (filename or name)
        if stem.with_suffix(".crt").exists():
            return stem
        authority = x509.load_pem_x509_certificate(self.path("crt").read_bytes())
        signer = serialization.load_pem_private_key(self.path("key").read_bytes(), None)
        assert isinstance(signer, ec.EllipticCurvePrivateKey)
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name(
            [
                *(x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups),
                x509.NameAttribute(NameOID.COMMON_NAME, user),
            ]
        )
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH, *([ExtendedKeyUsageOID.SERVER_AUTH] if hosts else [])]
        builder = (
            _builder(subject, authority.subject, key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        )
        if hosts:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False
            )
        _write(stem.with_suffix(".key"), _pem(key))
        certificate = builder.sign(signer, hashes.SHA256())
        stem.with_suffix(".crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return stem

    def path(self, suffix: str) -> Path:
        return self.folder / f"{self.name}.{suffix}"


def create_service_account_key(folder: Path) -> None:
    """What service accounts' tokens are signed with."""
    if (folder / "service-accounts.key").exists():
        return
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    _write(folder / "service-accounts.key", _pem(key))
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (folder / "service-accounts.pub").write_bytes(public)


def create_encryption(path: Path) -> None:
    """Secrets and ConfigMaps are encrypted before they reach etcd."""
    if path.exists():
        return
    key = base64.b64encode(secrets.token_bytes(32)).decode()
    document = {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "EncryptionConfiguration",
        "resources": [
            {
                "resources": ["secrets"],
                "providers": [{"secretbox": {"keys": [{"name": "first", "secret": key}]}}, {"identity": {}}],
            }
        ],
    }
    _write(path, yaml.safe_dump(document).encode())


def write_kubeconfig(path: Path, server: str, authority: Authority, client: Path) -> None:
    """How one client reaches the API server."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "isa",
        "contexts": [{"name": "isa", "context": {"cluster": "isa", "user": client.stem}}],
        "clusters": [
            {"name": "isa", "cluster": {"server": server, "certificate-authority": str(authority.path("crt"))}}
        ],
        "users": [
            {
                "name": client.stem,
                "user": {
                    "client-certificate": str(client.with_suffix(".crt")),
                    "client-key": str(client.with_suffix(".key")),
                },
            }
        ],
    }
    _write(path, yaml.safe_dump(document).encode())


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + VALID_FOR)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=not signs, data_encipherment=False,
        key_agreement=False, key_cert_sign=signs, crl_sign=signs, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, content: bytes) -> None:
    path.touch(0o600)
    path.write_bytes(content)
