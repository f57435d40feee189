"""Keys, tokens and password hashes, without a database."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import jwt
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from kernel.identity import Identity, Revocations
from services.users.domain import keys
from services.users.domain.keys import Algorithm, Issuer, Passwords, SigningKey

MASTER = bytes(range(32))
ISSUER = Issuer(name="isa-users", audience="isa", life=timedelta(minutes=10))


def signing_key(
    algorithm: Algorithm = "EdDSA", *, generation: int = 1, active_from: datetime | None = None
) -> SigningKey:
    at = active_from or datetime.now(UTC)
    return keys.new_signing_key(algorithm, MASTER, generation=generation, active_from=at)


def person_token(key: SigningKey, *, at: datetime, scopes: tuple[str, ...] = ()) -> str:
    private = keys.unseal(MASTER, key.sealed_private, key.kid)
    return ISSUER.person(
        key, private, user="user-a", org="org-a", role="admin", scopes=scopes, proof="session-a", at=at
    )


def identity(*published: SigningKey, workload_key: str = "", revocations: Revocations | None = None) -> Identity:
    async def people_keys() -> dict[str, object]:
        return keys.published(published, at=datetime.now(UTC))

    return Identity(
        issuer="isa-users",
        audience="isa",
        workload_key=workload_key,
        people_keys=people_keys,
        revocations=revocations or Revocations(),
    )


@pytest.mark.parametrize("algorithm", ["EdDSA", "RS256"])
async def test_every_room_believes_a_token_of_either_algorithm(algorithm: Algorithm) -> None:
    key = signing_key(algorithm)
    token = person_token(key, at=datetime.now(UTC), scopes=("tasks.read",))

    caller = await identity(key).caller({"authorization": f"Bearer {token}"})

    assert jwt.get_unverified_header(token) == {"alg": algorithm, "typ": "JWT", "kid": key.kid}
    assert (caller.org, caller.user, caller.session, caller.workload) == ("org-a", "user-a", "session-a", "")
    assert caller.may("tasks.read")
    assert not caller.may("tasks.write")


async def test_a_token_issued_just_after_a_change_of_rights_is_good_and_one_just_before_is_not() -> None:
    key, changed_at = signing_key(), datetime.now(UTC)
    revocations = Revocations()
    revocations.note("user-a", 2, "active", changed_at)
    room = identity(key, revocations=revocations)
    before = person_token(key, at=changed_at - timedelta(milliseconds=1))
    after = person_token(key, at=changed_at + timedelta(milliseconds=1))

    assert (await room.caller({"authorization": f"Bearer {after}"})).user == "user-a"
    with pytest.raises(Exception, match="older than a change"):
        await room.caller({"authorization": f"Bearer {before}"})


async def test_a_workload_token_is_signed_with_the_pair_of_the_secret_store() -> None:
    pair = Ed25519PrivateKey.generate()
    private = pair.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    public = (
        pair.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )
    token = ISSUER.workload(private, app_id="tasks", at=datetime.now(UTC))

    caller = await identity(workload_key=public).caller({"authorization": f"Bearer {token}", "isa-org": "org-b"})

    assert (caller.workload, caller.org) == ("tasks", "org-b")


def test_a_private_key_is_sealed_with_the_master_key_and_its_name() -> None:
    key = signing_key()

    assert b"PRIVATE" not in key.sealed_private
    assert "d" not in key.public_jwk
    with pytest.raises(InvalidTag):
        keys.unseal(bytes(32), key.sealed_private, key.kid)
    with pytest.raises(InvalidTag):
        keys.unseal(MASTER, key.sealed_private, "key-other")


def test_the_newest_key_that_is_already_published_signs() -> None:
    now = datetime.now(UTC)
    old = signing_key(active_from=now - timedelta(days=30))
    new = signing_key(generation=2, active_from=now + timedelta(minutes=2))

    assert keys.signing([old, new], at=now) is old
    assert keys.signing([old, new], at=now + timedelta(minutes=2)) is new
    assert keys.signing([], at=now) is None
    assert [key["kid"] for key in keys.published([old, new], at=now)["keys"]] == [old.kid, new.kid]  # type: ignore[attr-defined]


def test_the_master_key_is_thirty_two_bytes_whatever_the_secret_looks_like() -> None:
    assert keys.master_key(base64.b64encode(MASTER).decode()) == MASTER
    assert len(keys.master_key("a passphrase")) == 32


def test_what_is_counted_is_not_known() -> None:
    assert keys.blind(MASTER, "127.0.0.1") == keys.blind(MASTER, "127.0.0.1")
    assert keys.blind(MASTER, "127.0.0.1") != keys.blind(bytes(32), "127.0.0.1")


def test_a_password_is_right_wrong_or_nobodys() -> None:
    passwords = Passwords(memory_kib=64, passes=1)
    kept = passwords.hash("correct horse battery")

    assert kept.startswith("$argon2id$")
    assert passwords.verify(kept, "correct horse battery")
    assert not passwords.verify(kept, "wrong horse battery")
    assert not passwords.verify(None, "correct horse battery")
    assert not passwords.verify("no hash at all", "correct horse battery")
    assert Passwords(memory_kib=128, passes=1).is_outdated(kept)
    assert not passwords.is_outdated(kept)
