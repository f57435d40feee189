"""Names, headers and tokens of the NATS adapter, without a broker."""

from __future__ import annotations

import random

import pytest
from nats.aio.msg import Msg

from isa.streams.v1 import streams_pb2 as pb
from isa_common import Code, InvalidArgument, PermissionDenied
from kernel import Caller
from services.adapters.nats.codec import (
    ACK,
    ENVELOPE,
    LARGEST,
    Kind,
    Place,
    Tokens,
    apart,
    decode,
    envelope,
    fits,
    id_of,
    isolate,
    name,
    own,
    refusal,
    stream_config,
    subject,
)

TRIPLES = 1_000_000
ALICE, BOB = Caller(org="org-a", user="user-1"), Caller(org="org-b", user="user-2")


def caller(tenant: str) -> Caller:
    """A person of an organisation, or a workload that `tenant` names as `isa-<workload>`."""
    if tenant.startswith("isa-"):
        return Caller(workload=tenant.removeprefix("isa-"))
    return Caller(org=tenant, user="user-1")


def test_a_million_triples_of_tenant_kind_and_name_have_names_of_their_own() -> None:
    """Injective, also over names that no call lets through, and each is below its own tenant's prefix alone."""
    rng = random.Random(4)
    tenants = [f"org-{part}" for part in ("a", "b", "ab", "a1", "isa", "org", "kv")]
    tenants += [f"isa-{part}" for part in ("a", "a-b", "org-a", "kv")]
    callers = [(tenant, caller(tenant)) for tenant in tenants]
    pieces = [
        "a",
        "b",
        ".",
        "_",
        "-",
        ":",
        "/",
        "*",
        ">",
        "\0",
        "$KV.",
        "KV_",
        "org-a",
        "org-a.",
        "org-a_",
        "isa-a",
        "é",
    ]
    kinds = list(Kind)
    names = ["".join(rng.choices(pieces, k=n % 6)) for n in range(100_000)]
    owner: dict[str, tuple[str, Kind, str]] = {}
    for _ in range(TRIPLES):
        tenant, who = callers[int(rng.random() * len(callers))]
        triple = tenant, kinds[int(rng.random() * 4)], names[int(rng.random() * 100_000)]
        assert owner.setdefault(isolate(who, triple[1], triple[2]), triple) == triple
    prefixes = {(tenant, kind): isolate(who, kind, "") for tenant, who in callers for kind in kinds}
    for (tenant, kind), prefix in prefixes.items():
        strangers = [other for key, other in prefixes.items() if key != (tenant, kind)]
        assert not any(other.startswith(prefix) or prefix.startswith(other) for other in strangers)
    assert len(owner) > 100_000


def test_a_filter_takes_only_subjects_of_its_tenant() -> None:
    def matches(wanted: str, given: str) -> bool:
        """As NATS does it."""
        filters, tokens = wanted.split("."), given.split(".")
        for index, each in enumerate(filters):
            if each == ">":
                return len(tokens) > index
            if index >= len(tokens) or each not in ("*", tokens[index]):
                return False
        return len(filters) == len(tokens)

    filters = [">", "*", "*.>", "*.*", "a.>", "a", "*.a", "a.*.>", "org-a.>", "_INBOX.>", "KV.*"]
    foreign = [isolate(BOB, kind, given) for kind in Kind for given in ("a", "a.b", "org-a.a", "b.k")]
    foreign += [
        "_INBOX.x.1",
        "$JS.API.STREAM.LIST",
        "$JS.ACK.org-a_S.c.1.1.1.1.1",
        "$SYS.REQ.SERVER.PING",
        "$KV.org-a.b.k",
    ]

    for wanted in filters:
        physical = isolate(ALICE, Kind.SUBJECT, subject(wanted, "subject", is_filter=True))
        assert not [each for each in foreign if matches(physical, each)]
        assert matches(physical, isolate(ALICE, Kind.SUBJECT, "a")) == matches(wanted, "a")


@pytest.mark.parametrize("org", ["", "org-", "org-A", "org-a.b", "org-a_b", "org-*", "x", "org-" + "a" * 33, "org-a\n"])
def test_what_is_no_organisation_has_no_names(org: str) -> None:
    with pytest.raises(PermissionDenied):
        isolate(Caller(org=org), Kind.SUBJECT, "a")


@pytest.mark.parametrize(
    "given", ["", "a b", "a.b", "a*", "a>", "a\0", "é", "a/b", "x" * 65, "a\n", "$a", "a\\", "KV_a\u2028"]
)
def test_names_are_letters_digits_and_two_signs(given: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        name(given, "stream")

    assert caught.value.field == "stream"


@pytest.mark.parametrize(
    ("filters", "are_apart"),
    [
        (["a", "b"], True),
        (["a.*", "a.b"], False),
        (["a.>", "a"], True),
        (["a.>", "a.b.c"], False),
        (["*.b", "a.*"], False),
        (["a.*", "a.*.c"], True),
        ([">", "x"], False),
    ],
)
def test_filters_that_take_the_same_subject_are_found(filters: list[str], are_apart: bool) -> None:
    if are_apart:
        apart(filters, "subjects")
    else:
        with pytest.raises(InvalidArgument):
            apart(filters, "subjects")


def sent(headers: dict[str, str], *, data: bytes = b"", reply: str = "") -> Msg:
    """A message as NATS brings it."""
    return Msg(_client=None, subject=isolate(ALICE, Kind.SUBJECT, "s"), reply=reply, data=data, headers=headers)  # type: ignore[arg-type]  # none is needed to read


def test_headers_come_back_as_they_were() -> None:
    given = {"a": "é \r\n\0😀 ", "B-c.d_1": "", "Nats-Rollup": "all", "Status": "503"}

    headers = envelope(ALICE, given, "m-1")
    got = decode(ALICE, sent(headers))

    assert list(headers) == [ENVELOPE, "Nats-Msg-Id"]
    assert headers[ENVELOPE].isascii()
    assert headers[ENVELOPE].isprintable()
    assert (dict(got.headers), got.message_id, got.publisher, got.subject) == (given, "m-1", "user-1", "s")
    assert id_of(envelope(ALICE, {})) != id_of(envelope(ALICE, {}))


def test_a_message_that_no_adapter_sent_is_read_too() -> None:
    got = decode(ALICE, sent({}, data=b"x"))

    assert (got.data, got.publisher, got.message_id) == (b"x", "", "")


def test_what_is_larger_than_nats_takes_is_refused() -> None:
    headers = envelope(ALICE, {"a": "b"})
    room = LARGEST - sum(len(key) + len(value) + 4 for key, value in headers.items()) - 12

    fits(b"x" * room, headers)
    with pytest.raises(InvalidArgument):
        fits(b"x" * (room + 1), headers)


def test_tokens_open_only_for_whom_and_for_what_they_were_sealed() -> None:
    tokens, others = Tokens(), Tokens()
    tokens.use(b"key")
    others.use(b"another key")
    token = tokens.seal(ALICE, ACK, "$JS.ACK.org-a_S.c.1.1.1.1.0")

    assert tokens.open(ALICE, ACK, token, "t") == "$JS.ACK.org-a_S.c.1.1.1.1.0"
    assert tokens.open(Caller(org="org-a", user="user-9"), ACK, token, "t")
    for who, kind, given, opener in (
        (BOB, ACK, token, tokens),
        (Caller(workload="a"), ACK, token, tokens),
        (ALICE, "_INBOX.", token, tokens),
        (ALICE, ACK, token, others),
        (ALICE, ACK, token[:-1], tokens),
        (ALICE, ACK, token + b"0", tokens),
        (ALICE, ACK, bytes(16) + token[16:], tokens),
        (ALICE, ACK, b"", tokens),
    ):
        with pytest.raises(InvalidArgument) as caught:
            opener.open(who, kind, given, "ack_token")
        assert caught.value.field == "ack_token"


@pytest.mark.parametrize(
    "reply",
    ["$JS.ACK.org-a_S.c.2.7.9.1700000000123456789.3", "$JS.ACK.hub.hash.org-a_S.c.2.7.9.1700000000123456789.3.r"],
)
def test_a_place_is_read_from_both_forms_of_an_acknowledgement(reply: str) -> None:
    place = Place(sent({}, reply=reply))

    assert (place.attempt, place.sequence, place.consumer_sequence, place.pending) == (2, 7, 9, 3)
    assert (place.time.seconds, place.time.nanos) == (1700000000, 123456789)


def test_a_stream_listens_only_below_its_tenant() -> None:
    config = stream_config(
        ALICE,
        pb.StreamConfig(name="S", subjects=["a", "b.>"]),
        bytes_default=64,
        bytes_most=128,
        replicas=1,
    )

    assert (config["name"], config["subjects"], config["max_bytes"]) == ("org-a_S", ["org-a.a", "org-a.b.>"], 64)
    assert config["storage"] == "file"
    assert not {"mirror", "sources", "republish", "subject_transform"} & set(config)
    assert own(ALICE, Kind.STREAM, config["name"]) == "S"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ({"code": 404, "err_code": 10059, "description": "stream org-a_S"}, Code.NOT_FOUND),
        ({"code": 400, "err_code": 10058, "description": "x"}, Code.ALREADY_EXISTS),
        ({"code": 400, "err_code": 10071, "description": "x"}, Code.ABORTED),
        ({"code": 503, "err_code": 10077, "description": "x"}, Code.RESOURCE_EXHAUSTED),
        ({"code": 503, "err_code": 1, "description": "host nats-3"}, Code.UNAVAILABLE),
        ({"code": 400, "err_code": 1, "description": "x"}, Code.INVALID_ARGUMENT),
        ({"code": 500, "err_code": 1, "description": "secret"}, Code.INTERNAL),
    ],
)
def test_refusals_come_in_our_own_words(error: dict[str, object], code: Code) -> None:
    told = refusal(error)

    assert told.code is code
    assert str(error["description"]) not in told.message or error["description"] == "x"
