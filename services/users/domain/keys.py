"""Password hashes, signing keys and the tokens that they sign."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

import argon2
import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

Algorithm = Literal["EdDSA", "RS256"]
RSA_BITS = 3072
NONCE = 12
WORKLOAD_KEY = "workload"
"""`kid` of our own programs' tokens, whose key pair is in the secret store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """A key pair for people's tokens. It is published before it signs, and until what it signed has expired."""

    kid: str
    generation: int
    algorithm: Algorithm
    public_jwk: dict[str, object]
    sealed_private: bytes
    active_from: datetime
    expires_at: datetime | None = None

    def is_published(self, *, at: datetime) -> bool:
        """Tell whether it belongs into the key set."""
        return self.expires_at is None or at < self.expires_at


def signing(keys: Sequence[SigningKey], *, at: datetime) -> SigningKey | None:
    """Return the newest key that signs by now."""
    ready = [key for key in keys if key.active_from <= at and key.is_published(at=at)]
    return max(ready, key=lambda key: key.generation, default=None)


def published(keys: Iterable[SigningKey], *, at: datetime) -> dict[str, object]:
    """Return the JSON Web Key Set: every key whose tokens may still be good, and the one that comes next."""
    return {"keys": [key.public_jwk for key in keys if key.is_published(at=at)]}


def new_signing_key(algorithm: Algorithm, master: bytes, *, generation: int, active_from: datetime) -> SigningKey:
    """Make a key pair, the private part sealed with the master key. RSA takes up to a second: run it in a thread."""
    private: ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
    if algorithm == "EdDSA":
        private = ed25519.Ed25519PrivateKey.generate()
        public = json.loads(jwt.algorithms.OKPAlgorithm.to_jwk(private.public_key()))
    else:
        private = rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)
        public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(private.public_key()))
        public.pop("key_ops", None)
    kid = f"key-{secrets.token_hex(8)}"
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return SigningKey(
        kid=kid,
        generation=generation,
        algorithm=algorithm,
        public_jwk={**public, "kid": kid, "alg": algorithm, "use": "sig"},
        sealed_private=seal(master, pem, kid),
        active_from=active_from,
    )


def master_key(secret: str) -> bytes:
    """Return the 32 bytes of the master key: base64 of 32 bytes as it is, any other text by SHA-256."""
    try:
        raw = base64.b64decode(secret, validate=True)
    except ValueError:
        raw = b""
    return raw if len(raw) == 32 else hashlib.sha256(secret.encode()).digest()


def seal(master: bytes, plain: bytes, name: str) -> bytes:
    """Encrypt with AES-256-GCM; the name is bound to it, so that rows cannot be swapped."""
    nonce = secrets.token_bytes(NONCE)
    return nonce + AESGCM(master).encrypt(nonce, plain, name.encode())


def unseal(master: bytes, sealed: bytes, name: str) -> bytes:
    """Decrypt what `seal` made under the same name; cryptography's InvalidTag when anything differs."""
    return AESGCM(master).decrypt(sealed[:NONCE], sealed[NONCE:], name.encode())


def blind(master: bytes, text: str) -> str:
    """Return a keyed hash, for what is counted and need not be known, such as an address."""
    return hmac.new(master, text.encode(), hashlib.sha256).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """Who signs, for whom, and for how long."""

    name: str
    audience: str
    life: timedelta

    def claims(self, subject: str, *, at: datetime) -> dict[str, object]:
        """Return what every token says. `iat` keeps fractions: a new token outlives the change just before it."""
        return {
            "iss": self.name,
            "aud": self.audience,
            "sub": subject,
            "iat": at.timestamp(),
            "exp": int((at + self.life).timestamp()),
            "jti": secrets.token_hex(12),
        }

    def person(
        self,
        key: SigningKey,
        private_pem: bytes,
        *,
        user: str,
        org: str,
        role: str,
        scopes: Sequence[str],
        proof: str,
        at: datetime,
    ) -> str:
        """Sign the token of a person or of a person's program; `proof` is the session or the credential."""
        claims = self.claims(user, at=at) | {"org": org, "roles": [role], "sid": proof}
        if scopes:
            claims["scope"] = " ".join(scopes)
        return jwt.encode(claims, private_pem, algorithm=key.algorithm, headers={"kid": key.kid})

    def workload(self, private_pem: str, *, app_id: str, at: datetime) -> str:
        """Sign the token of one of our own programs."""
        claims = self.claims(app_id, at=at) | {"wl": app_id}
        return jwt.encode(claims, private_pem, algorithm="EdDSA", headers={"kid": WORKLOAD_KEY})


class Passwords:
    """argon2id with given costs. It takes tens of milliseconds of a core by design: run it in a thread."""

    def __init__(self, *, memory_kib: int, passes: int, lanes: int = 1) -> None:
        self._hasher = argon2.PasswordHasher(time_cost=passes, memory_cost=memory_kib, parallelism=lanes)
        self._nobody = self._hasher.hash(secrets.token_urlsafe())

    def hash(self, password: str) -> str:
        """Return what is kept of a password; its costs stand in it."""
        return self._hasher.hash(password)

    def verify(self, kept: str | None, password: str) -> bool:
        """Tell whether a password is right; without a hash the same work is done and the answer is no."""
        try:
            self._hasher.verify(kept or self._nobody, password)
        except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
            return False
        return kept is not None

    def is_outdated(self, kept: str) -> bool:
        """Tell whether a hash was made with other costs, and should be made again at this log-in."""
        return self._hasher.check_needs_rehash(kept)
