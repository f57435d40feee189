"""Tokens that must open nothing: absent, stale, forged, for somebody else, or with less than a call needs."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from grpc import StatusCode

from services.users.domain.keys import master_key, unseal
from tests.conftest import Organisation, Stack

NOBODY = frozenset({StatusCode.UNAUTHENTICATED})
NOT_ALLOWED = frozenset({StatusCode.PERMISSION_DENIED})


@dataclass(frozen=True, slots=True)
class Credential:
    """What is sent along, and which answers are right."""

    name: str
    metadata: Mapping[str, str]
    expected: frozenset[StatusCode]


@dataclass(frozen=True)
class Signer:
    """The set's own keys, to sign what its services never would."""

    kid: str
    algorithm: str
    private: Any
    public: bytes
    workload: str
    """PEM of the key of our own programs."""

    def person(self, org: str, user: str, **changes: object) -> str:
        """A person's token with the right signature; `changes` replace claims, None leaves one out."""
        now = datetime.now(UTC)
        claims = {
            "iss": "isa-users", "aud": "isa", "sub": user, "org": org, "roles": ["owner"], "sid": "session-attack",
            "iat": now.timestamp(), "exp": now.timestamp() + 600, "jti": "attack", **changes,
        }  # fmt: skip
        claims = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(claims, self.private, algorithm=self.algorithm, headers={"kid": self.kid})

    def program(self, name: str) -> str:
        """A workload's token with the right signature."""
        now = datetime.now(UTC).timestamp()
        claims = {"iss": "isa-users", "aud": "isa", "sub": name, "wl": name, "iat": now, "exp": now + 600}
        return jwt.encode(claims, self.workload, algorithm="EdDSA", headers={"kid": "workload"})


async def signer(stack: Stack) -> Signer:
    """Read the key that `users` signs with out of its database, as only who holds the master key can."""
    host, _, port = stack.layout.address("postgres").rpartition(":")
    password = stack.secrets["postgres-superuser"]
    connection = await asyncpg.connect(host=host, port=int(port), user="isa", password=password, database="users")
    try:
        row = await connection.fetchrow(
            "SELECT kid, algorithm, sealed_private FROM signing_keys WHERE active_from <= now()"
            " AND (expires_at IS NULL OR expires_at > now()) ORDER BY generation DESC LIMIT 1"
        )
    finally:
        await connection.close()
    pem = unseal(master_key(stack.secrets["users-master-key"]), bytes(row["sealed_private"]), row["kid"])
    private = serialization.load_pem_private_key(pem, None)
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return Signer(row["kid"], row["algorithm"], private, public, stack.secrets["workload-signing-private"])


def bad(signer: Signer, victim: Organisation, attacker: Organisation) -> list[Credential]:
    """Return every credential that must be refused by every RPC."""
    org, user, now = victim.org_id, victim.user_id, datetime.now(UTC)
    good, own = signer.person(org, user), ed25519.Ed25519PrivateKey.generate()
    other_rsa = rsa.generate_private_key(65537, 2048)
    header, payload, _ = good.split(".")
    swapped = json.dumps({**jwt.decode(attacker.token, options={"verify_signature": False}), "org": org, "sub": user})
    claims = jwt.decode(good, options={"verify_signature": False})

    def forged(key: Any, algorithm: str, **headers: object) -> str:
        return jwt.encode(claims, key, algorithm=algorithm, headers=headers)

    def hmac_of_the_public_key() -> str:
        head = _part({"alg": "HS256", "typ": "JWT", "kid": signer.kid})
        algorithm = jwt.get_algorithm_by_name("HS256")
        body = f"{head}.{payload}"
        mac = algorithm.sign(body.encode(), signer.public)
        return f"{body}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"

    tokens = {
        "a word that is no token": "hello",
        "an empty signature": f"{header}.{payload}.",
        "the algorithm none": f"{_part({'alg': 'none', 'kid': signer.kid})}.{payload}.",
        "HS256 with the public key as its secret": hmac_of_the_public_key(),
        "a key of its own under our key id": forged(own, "EdDSA", kid=signer.kid),
        "an RSA key of its own under our key id": forged(other_rsa, "RS256", kid=signer.kid),
        "a key of its own that it brings along": forged(own, "EdDSA", kid="mine", jku="http://127.0.0.1:1/jwks.json"),
        "a key id that is a path": forged(own, "EdDSA", kid="../../../../dev/null"),
        "a key id that is a query": forged(own, "EdDSA", kid="x' UNION SELECT 'key"),
        "a program's key id and a key of its own": forged(own, "EdDSA", kid="workload"),
        "no key id": forged(own, "EdDSA"),
        "another organisation in a signed token": f"{attacker.token.split('.')[0]}.{_part(json.loads(swapped))}."
        f"{attacker.token.split('.')[2]}",
        "a signature of another token": f"{header}.{payload}.{attacker.token.split('.')[2]}",
        "an expired token": signer.person(org, user, exp=(now - timedelta(minutes=5)).timestamp()),
        "a token for another audience": signer.person(org, user, aud="grafana"),
        "a token for a list that lacks us": signer.person(org, user, aud=["a", "b"]),
        "a token of another issuer": signer.person(org, user, iss="isa-users.example.org"),
        "a token that is not good yet": signer.person(org, user, nbf=(now + timedelta(hours=1)).timestamp()),
        "a token from the future": signer.person(org, user, iat=(now + timedelta(hours=1)).timestamp()),
        "a token without an expiry": signer.person(org, user, exp=None),
        "a token without a subject": signer.person(org, user, sub=None),
        "an organisation with a separator": signer.person(f"{org}:{user}", user),
        "an organisation that is a pattern": signer.person("org-*", user),
        "no organisation": signer.person("", user),
        "a list of organisations": signer.person([org], user),  # type: ignore[arg-type]  # on purpose
        "a user with a separator": signer.person(org, f"{user}:x"),
    }
    credentials = [Credential(name, {"authorization": f"Bearer {token}"}, NOBODY) for name, token in tokens.items()]
    for name, text in {"no token": None, "an empty token": "Bearer ", "a password": "Basic dXNlcjpwYXNz"}.items():
        credentials.append(Credential(name, {} if text is None else {"authorization": text}, NOBODY))
    acting = {"authorization": f"Bearer {attacker.token}", "isa-org": org, "isa-user": user}
    credentials += [
        Credential("somebody else's organisation in the metadata", acting, NOT_ALLOWED),
        Credential("somebody else's user in the metadata", {**acting, "isa-org": attacker.org_id}, NOT_ALLOWED),
        Credential("a forged caller of a sidecar alone", {"dapr-caller-app-id": "users", "isa-org": org}, NOBODY),
        Credential("a program that nobody knows", {"authorization": f"Bearer {signer.program('root')}"}, NOT_ALLOWED),
        Credential(
            "a program that nobody knows, for an organisation",
            {"authorization": f"Bearer {signer.program('root')}", "isa-org": org, "isa-user": user},
            NOT_ALLOWED,
        ),
        Credential(
            "no role",
            {"authorization": f"Bearer {signer.person(attacker.org_id, attacker.user_id, roles=[])}"},
            NOT_ALLOWED,
        ),
        Credential(
            "a scope of something else",
            {"authorization": f"Bearer {signer.person(attacker.org_id, attacker.user_id, scope='tasks.read')}"},
            NOT_ALLOWED,
        ),
    ]
    return credentials


def _part(content: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")
