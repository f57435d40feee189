"""Tokens become callers, or they do not: with real keys."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from datetime import UTC, datetime, timedelta

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from isa_common import InvalidArgument, PermissionDenied, Unauthenticated, Unavailable
from kernel import identity as module
from kernel.caller import Caller
from kernel.identity import Revocations, WorkloadToken
from tests.unit.fakes import Issuer, bearer, public_pem


def forged(header: dict[str, object], claims: dict[str, object], secret: bytes = b"") -> str:
    """Return a token made by hand, signed with HMAC where there is a secret."""
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, claims)]
    signature = hmac.digest(secret, b".".join(parts), hashlib.sha256) if secret else b""
    return b".".join([*parts, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()


def claims_of(token: str) -> dict[str, object]:
    return jwt.decode(token, options={"verify_signature": False})


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.wall, self.steady = time.time(), 1000.0

    def time(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.steady

    def sleep(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.mark.parametrize("kid", ["key-ed", "key-rsa"])
async def test_a_good_token_says_who_calls(issuer: Issuer, kid: str) -> None:
    token = issuer.token(kid=kid, scope="tasks.read sql.read")

    caller = await issuer.identity().caller(bearer(token))

    assert caller == Caller(
        org="org-a",
        user="user-alice",
        roles=frozenset({"member"}),
        scopes=frozenset({"tasks.read", "sql.read"}),
        session="session-1",
    )


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer ", "Basic abc", "token"])
async def test_without_a_bearer_token_nobody_calls(issuer: Issuer, value: str) -> None:
    with pytest.raises(Unauthenticated, match="bearer token is needed"):
        await issuer.identity().caller({"authorization": value})


async def test_the_scheme_is_read_in_any_case(issuer: Issuer) -> None:
    caller = await issuer.identity().caller({"authorization": f"bEARER {issuer.token()}"})

    assert caller.user == "user-alice"


@pytest.mark.parametrize(
    "changes",
    [
        {"now": time.time() - 700},
        {"now": time.time() + 36_000},
        {"nbf": int(time.time()) + 36_000},
        {"aud": "somebody-else"},
        {"aud": None},
        {"iss": "https://evil.example"},
        {"iss": None},
        {"sub": None},
        {"exp": None},
        {"iat": None},
        {"iat": "yesterday"},
        {"org": None},
        {"org": ""},
        {"org": "org-A"},
        {"org": "org-a:b"},
        {"org": ["org-a"]},
        {"org": "org-a\n"},
        {"sub": "org-b:user-x"},
        {"sub": "*"},
    ],
)
async def test_a_signed_token_with_wrong_claims_is_refused(issuer: Issuer, changes: dict[str, object]) -> None:
    with pytest.raises(Unauthenticated):
        await issuer.identity().caller(bearer(issuer.token(**changes)))  # type: ignore[arg-type]  # by name


async def test_an_expired_token_is_told_so(issuer: Issuer) -> None:
    with pytest.raises(Unauthenticated, match="expired"):
        await issuer.identity().caller(bearer(issuer.token(now=time.time() - 700)))


async def test_clocks_may_differ_by_the_leeway(issuer: Issuer) -> None:
    caller = await issuer.identity().caller(bearer(issuer.token(now=time.time() + module.LEEWAY - 10)))

    assert caller.user == "user-alice"


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "a.b.c",
        "..",
        "ey.ey.ey",
        "é.é.é",
        "bnVsbA.bnVsbA.bnVsbA",
        "W10.W10.W10",
        "e30.e30.",
        "a" * 9000,
        "\x00.\x00.\x00",
    ],
)
async def test_rubbish_is_refused(issuer: Issuer, token: str) -> None:
    with pytest.raises(Unauthenticated):
        await issuer.identity().caller(bearer(token))


@pytest.mark.parametrize("kid", [1, None, ["key-ed"], {"a": 1}, "", "x" * 9000, "../../etc/passwd"])
async def test_a_strange_key_id_is_refused(issuer: Issuer, kid: object) -> None:
    token = forged({"alg": "EdDSA", "kid": kid}, claims_of(issuer.token()))

    with pytest.raises(Unauthenticated):
        await issuer.identity().caller(bearer(token))


@pytest.mark.parametrize("kid", ["key-ed", "key-rsa", "workload"])
@pytest.mark.parametrize("alg", ["none", "None", "NONE", ""])
async def test_an_unsigned_token_is_refused(issuer: Issuer, kid: str, alg: str) -> None:
    token = forged({"alg": alg, "kid": kid, "typ": "JWT"}, {**claims_of(issuer.token()), "wl": "tasks"})

    with pytest.raises(Unauthenticated):
        await issuer.identity().caller(bearer(token))


@pytest.mark.parametrize("kid", ["key-ed", "key-rsa", "workload"])
async def test_a_public_key_is_no_secret_to_sign_with(issuer: Issuer, kid: str) -> None:
    pem = issuer.workload_pem if kid == "workload" else public_pem(issuer.people[kid])
    token = forged({"alg": "HS256", "kid": kid}, {**claims_of(issuer.token()), "wl": "tasks"}, pem.encode())

    with pytest.raises(Unauthenticated):
        await issuer.identity().caller(bearer(token))


@pytest.mark.parametrize("alg", ["RS384", "RS512", "PS256"])
async def test_only_two_algorithms_are_taken(issuer: Issuer, alg: str) -> None:
    with pytest.raises(Unauthenticated):
        await issuer.identity().caller(bearer(issuer.token(kid="key-rsa", alg=alg)))


async def test_a_key_signs_by_its_own_algorithm_alone(issuer: Issuer) -> None:
    with pytest.raises(Unauthenticated):
        await issuer.identity().caller(bearer(issuer.token(kid="key-rsa", key=issuer.ed25519)))
    with pytest.raises(Unauthenticated):
        await issuer.identity().caller(bearer(issuer.token(kid="key-ed", key=issuer.rsa)))


async def test_a_changed_token_is_refused(issuer: Issuer) -> None:
    header, _, signature = issuer.token().split(".")
    richer = base64.urlsafe_b64encode(json.dumps({**claims_of(issuer.token()), "roles": ["owner"]}).encode())

    with pytest.raises(Unauthenticated):
        await issuer.identity().caller(bearer(f"{header}.{richer.rstrip(b'=').decode()}.{signature}"))


async def test_a_person_cannot_pass_for_a_workload(issuer: Issuer) -> None:
    by_a_persons_key = issuer.token(kid="workload", key=issuer.ed25519, wl="tasks")
    by_a_claim = issuer.token(wl="tasks", roles=["viewer"])
    identity = issuer.identity()

    with pytest.raises(Unauthenticated):
        await identity.caller(bearer(by_a_persons_key))
    assert (await identity.caller(bearer(by_a_claim))).workload == ""


async def test_a_workload_key_signs_no_persons_token(issuer: Issuer) -> None:
    identity = issuer.identity()

    with pytest.raises(Unauthenticated):
        await identity.caller(bearer(issuer.token(kid="key-ed", key=issuer.workload)))
    with pytest.raises(Unauthenticated):
        await identity.caller(bearer(issuer.token(kid="workload", key=issuer.workload)))  # names no workload


async def test_a_published_key_called_workload_changes_nothing(issuer: Issuer) -> None:
    intruder = ed25519.Ed25519PrivateKey.generate()
    issuer.people["workload"] = intruder

    with pytest.raises(Unauthenticated):
        await issuer.identity().caller(bearer(issuer.token(kid="workload", key=intruder, wl="tasks")))


async def test_roles_that_are_no_list_give_nothing(issuer: Issuer) -> None:
    caller = await issuer.identity().caller(bearer(issuer.token(roles="owner")))

    assert caller.roles == frozenset()


async def test_a_workload_is_nobodys_until_it_acts(issuer: Issuer) -> None:
    identity = issuer.identity()
    token = issuer.workload_token("tasks")

    alone = await identity.caller(bearer(token))
    acting = await identity.caller(bearer(token, isa_org="org-b", isa_user="user-bob"))

    assert alone == Caller(workload="tasks")
    assert acting == Caller(workload="tasks", org="org-b", user="user-bob")
    assert await identity.caller(bearer(token)) == Caller(workload="tasks")
    assert issuer.fetches == 0  # no circle at start: our own tokens need nobody's JWKS


@pytest.mark.parametrize("org", ["org-A", "platform", "*", "org-a:b", "org-", "ORG-a", "org-" + "a" * 33])
async def test_a_workload_cannot_act_for_a_malformed_organisation(issuer: Issuer, org: str) -> None:
    with pytest.raises(InvalidArgument):
        await issuer.identity().caller(bearer(issuer.workload_token(), isa_org=org))


async def test_a_workload_cannot_act_for_a_malformed_user(issuer: Issuer) -> None:
    with pytest.raises(InvalidArgument):
        await issuer.identity().caller(bearer(issuer.workload_token(), isa_org="org-a", isa_user="alice"))


@pytest.mark.parametrize(
    "acting",
    [{"isa_org": "org-b"}, {"isa_user": "user-bob"}, {"isa_org": "org-a", "isa_user": "user-bob"}, {"isa_org": "*"}],
)
async def test_a_person_acts_for_nobody_else(issuer: Issuer, acting: dict[str, str]) -> None:
    with pytest.raises(PermissionDenied):
        await issuer.identity().caller(bearer(issuer.token(), **acting))


async def test_a_person_may_name_who_they_are(issuer: Issuer) -> None:
    caller = await issuer.identity().caller(bearer(issuer.token(), isa_org="org-a", isa_user="user-alice"))

    assert caller.org == "org-a"


async def test_a_token_is_verified_once(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    identity = issuer.identity()
    token = issuer.token()
    await identity.caller(bearer(token))
    monkeypatch.setattr(module.jwt, "decode", None)

    assert (await identity.caller(bearer(token))).user == "user-alice"


async def test_the_cache_of_tokens_is_bounded(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CACHED_TOKENS", 3)
    identity = issuer.identity()

    for number in range(6):
        await identity.caller(bearer(issuer.token(jti=f"token-{number}")))

    assert len(identity._verified) == 3


async def test_a_known_token_ends_when_it_expires(issuer: Issuer, clock: Clock) -> None:
    identity = issuer.identity()
    token = issuer.token()
    await identity.caller(bearer(token))

    clock.sleep(600 + module.LEEWAY + 1)

    with pytest.raises(Unauthenticated, match="expired"):
        await identity.caller(bearer(token))


@pytest.mark.parametrize("subject", ["org-a", "user-alice", "session-1"])
@pytest.mark.parametrize(
    ("state", "refusal"), [("revoked", Unauthenticated), ("deleted", Unauthenticated), ("suspended", PermissionDenied)]
)
async def test_a_known_token_ends_with_its_subject(
    issuer: Issuer, subject: str, state: str, refusal: type[Exception]
) -> None:
    revocations = Revocations()
    identity = issuer.identity(revocations)
    token = issuer.token()
    await identity.caller(bearer(token))

    revocations.note(subject, 2, state, None)

    with pytest.raises(refusal):
        await identity.caller(bearer(token))


async def test_another_subjects_end_changes_nothing(issuer: Issuer) -> None:
    revocations = Revocations()
    revocations.note("org-b", 1, "revoked", None)
    revocations.note("session-2", 1, "revoked", None)

    assert (await issuer.identity(revocations).caller(bearer(issuer.token()))).user == "user-alice"


async def test_tokens_from_before_a_change_of_rights_are_refused_and_newer_ones_taken(issuer: Issuer) -> None:
    revocations = Revocations()
    identity = issuer.identity(revocations)
    old, new = issuer.token(now=time.time() - 100), issuer.token(now=time.time())
    await identity.caller(bearer(old))

    revocations.note("user-alice", 2, "active", datetime.now(UTC) - timedelta(seconds=50))

    with pytest.raises(Unauthenticated, match="older than a change"):
        await identity.caller(bearer(old))
    assert (await identity.caller(bearer(new))).user == "user-alice"


async def test_the_newest_verdict_holds_whatever_the_order(issuer: Issuer) -> None:
    revocations = Revocations()
    revocations.note("user-alice", 3, "active", None)
    revocations.note("user-alice", 2, "suspended", None)

    assert (await issuer.identity(revocations).caller(bearer(issuer.token()))).user == "user-alice"


async def test_the_past_events_of_a_suspended_organisation_still_apply(issuer: Issuer) -> None:
    revocations = Revocations()
    revocations.note("org-b", 1, "suspended", None)

    acting = await issuer.identity(revocations).caller(bearer(issuer.workload_token(), isa_org="org-b"))

    assert acting.org == "org-b"


async def test_an_unknown_key_is_looked_for_at_most_every_five_seconds(issuer: Issuer, clock: Clock) -> None:
    identity = issuer.identity()
    stranger = ed25519.Ed25519PrivateKey.generate()

    for number in range(20):
        with pytest.raises(Unauthenticated):
            await identity.caller(bearer(issuer.token(kid=f"key-{number}", key=stranger)))

    assert issuer.fetches == 1
    clock.sleep(module.KEYS_AT_MOST_EVERY)
    with pytest.raises(Unauthenticated):
        await identity.caller(bearer(issuer.token(kid="key-x", key=stranger)))
    assert issuer.fetches == 2


async def test_many_at_once_ask_for_the_keys_once(issuer: Issuer) -> None:
    identity = issuer.identity()

    callers = await asyncio.gather(*(identity.caller(bearer(issuer.token(jti=str(n)))) for n in range(20)))

    assert len(callers) == 20
    assert issuer.fetches == 1


async def test_a_rotated_key_is_found_and_a_retired_one_forgotten(issuer: Issuer, clock: Clock) -> None:
    identity = issuer.identity()
    await identity.caller(bearer(issuer.token()))
    retired = issuer.token(jti="late")
    issuer.people = {"key-next": ed25519.Ed25519PrivateKey.generate()}

    clock.sleep(6)

    assert (await identity.caller(bearer(issuer.token(kid="key-next")))).user == "user-alice"
    with pytest.raises(Unauthenticated):
        await identity.caller(bearer(retired))


async def test_a_withdrawn_key_is_refused_with_all_it_signed(issuer: Issuer, clock: Clock) -> None:
    identity = issuer.identity()
    known, unseen = issuer.token(), issuer.token(jti="forged-later")
    await identity.caller(bearer(known))
    del issuer.people["key-ed"]

    clock.sleep(module.KEYS_FRESH)
    await identity.caller(bearer(known))  # goes on with what is known, and has the keys read beside it
    await asyncio.sleep(0)

    for token in (known, unseen):
        with pytest.raises(Unauthenticated):
            await identity.caller(bearer(token))


async def test_keys_are_read_again_once_however_many_call(issuer: Issuer, clock: Clock) -> None:
    identity = issuer.identity()
    token = issuer.token()
    await identity.caller(bearer(token))

    clock.sleep(module.KEYS_FRESH)
    await asyncio.gather(*(identity.caller(bearer(token)) for _ in range(20)))
    await asyncio.sleep(0)

    assert issuer.fetches == 2


async def test_while_the_keys_cannot_be_read_known_ones_go_on(issuer: Issuer, clock: Clock) -> None:
    identity = issuer.identity()
    await identity.caller(bearer(issuer.token()))
    issuer.is_down = Unavailable("users is away.")
    clock.sleep(60)

    assert (await identity.caller(bearer(issuer.token(jti="next")))).user == "user-alice"
    with pytest.raises(Unavailable):
        await identity.caller(bearer(issuer.token(kid="key-new", key=issuer.ed25519)))


@pytest.mark.parametrize("failure", [Unavailable("Away."), RuntimeError("Bug."), TimeoutError()])
async def test_keys_that_cannot_be_read_are_our_fault_and_not_the_callers(issuer: Issuer, failure: Exception) -> None:
    issuer.is_down = failure

    with pytest.raises(Unavailable):
        await issuer.identity().caller(bearer(issuer.token()))


@pytest.mark.parametrize("answer", [{}, {"keys": []}, {"keys": [{"kty": "XYZ"}]}, {"keys": "none"}, [], None])
async def test_a_malformed_key_set_is_our_fault_too(
    issuer: Issuer, answer: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def jwks() -> object:
        return answer

    monkeypatch.setattr(issuer, "jwks", jwks)

    with pytest.raises(Unavailable):
        await issuer.identity().caller(bearer(issuer.token()))


async def test_a_failed_look_at_the_keys_is_not_repeated_for_each_caller(issuer: Issuer, clock: Clock) -> None:
    issuer.is_down = Unavailable("users is away.")
    identity = issuer.identity()

    results = await asyncio.gather(
        *(identity.caller(bearer(issuer.token(jti=str(n)))) for n in range(20)), return_exceptions=True
    )

    assert all(isinstance(result, Unavailable) for result in results)
    assert issuer.fetches == 1
    issuer.is_down = None
    clock.sleep(1.1)
    assert (await identity.caller(bearer(issuer.token()))).user == "user-alice"


async def test_our_own_token_is_renewed_before_it_ends_and_by_one_alone() -> None:
    issued: list[datetime] = []

    async def issue() -> tuple[str, datetime]:
        await asyncio.sleep(0)
        lives = timedelta(seconds=WorkloadToken.RENEW_BEFORE + (-1 if not issued else 300))
        issued.append(datetime.now(UTC) + lives)
        return f"token-{len(issued)}", issued[-1]

    token = WorkloadToken(issue)

    assert await token() == "token-1"
    assert set(await asyncio.gather(*(token() for _ in range(10)))) == {"token-2"}
    assert len(issued) == 2


async def test_a_failed_renewal_is_tried_again() -> None:
    attempts = 0

    async def issue() -> tuple[str, datetime]:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            raise Unavailable("users is away.")
        return "token", datetime.now(UTC) + timedelta(minutes=10)

    token = WorkloadToken(issue)

    with pytest.raises(Unavailable):
        await token()
    assert await token() == "token"
