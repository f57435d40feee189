"""What the texts of requests hold, the names of one tenant's things, and the texts that try to get out of a tenant."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

from isa.cache.v1 import cache_pb2
from tests.attack.surface import Values

CACHE = cache_pb2.DESCRIPTOR
DIMENSION = 4
NUMBERS = {
    "dimension": DIMENSION, "limit": 10, "max_bytes": 1 << 20, "max_messages": 1000, "max_messages_per_subject": 100,
    "max_message_size": 1 << 16, "max_value_size": 1 << 16, "history": 3, "max_deliver": 5, "max_ack_pending": 10,
    "max_in_flight": 5, "wait": 0, "delay": 0, "size": 0, "max_size": 1 << 20, "min_size": 0, "expires_in": 900,
    "timeout": 5, "idle_timeout": 5, "duplicate_window": 60, "lease": 5,
}  # fmt: skip
"""What numbers, and durations in seconds, are when 1 or an hour makes no sense."""
VECTOR = struct.pack(f"<{DIMENSION}f", 1, 0, 0, 0)


@dataclass(frozen=True)
class Names:
    """The things of one tenant.

    An attacker is told the name `tag`, and uses it. Nobody is told `hidden`, the name of as many other things, nor
    `secret`, which all of its data hold: neither may reach anybody else.
    """

    org: str
    user: str
    tag: str = field(default_factory=lambda: f"nm{uuid.uuid4().hex[:10]}")
    hidden: str = field(default_factory=lambda: f"hd{uuid.uuid4().hex[:10]}")
    secret: bytes = field(default_factory=lambda: f"scrt{uuid.uuid4().hex}".encode())
    handles: dict[str, bytes | str] = field(default_factory=dict)
    """Opaque handles that a service gave this tenant, by the name of the field that takes them."""

    @property
    def words(self) -> list[str]:
        """What it calls its things: one name serves for a key, a bucket, a stream, a collection and a table."""
        return [self.tag, self.hidden]

    def values(self, data: bytes = b"") -> Values:
        """What the texts of a request hold when its sender means this tenant's things, and stores `data`."""
        tag, secret = [self.tag], [data or self.secret]
        handles: dict[str, list[object]] = {name: [value] for name, value in self.handles.items()}
        return Values(
            {
                # names
                "key": tag, "keys": tag, "bucket": tag, "collection": tag, "stream": tag, "consumer": tag,
                "name": tag, "target_bucket": tag, "target_key": tag, "prefix": tag, "table": tag, "group": tag,
                "channel": tag, "channels": tag, "patterns": ["*"], "holder": ["holder"],
                "subject": [f"{self.tag}.x", f"{self.tag}.>"], "subjects": [f"{self.tag}.>"], "filter": [">", self.tag],
                "filter_subject": [f"{self.tag}.>"], "filter_subjects": [f"{self.tag}.>"],
                "last_of_subject": [f"{self.tag}.x"], "columns": ["secret"], "schema": ["public"],
                "delimiter": ["/"], "sql.delimiter": [","], "null_text": [""],
                # data
                "value": secret, "values": secret, "member": secret, "members": secret, "data": secret, "chunk": secret,
                "description": ["-"], "headers": ["x"], "content_type": ["text/plain"], "download_as": ["a.txt"],
                "metadata": ["x"], "labels": ["shop"], "isa.logs.v1.Entry.line": ["hello"], "message_id": [""],
                "publisher": [""],
                # SQL and LogQL
                "sql": [f"SELECT * FROM {self.tag}", f"DELETE FROM {self.tag}", f"DROP TABLE {self.tag}"],
                "params": [b""], "tx_id": [uuid.uuid4().hex],
                "query": ['{service=~".+"}', 'sum(count_over_time({service=~".+"}[1h]))'],
                "selector": ['{service=~".+"}'], "selectors": ['{service=~".+"}'],
                # vectors
                "vector": [VECTOR], "dense": [VECTOR], "isa.vectors.v1.SparseVector.indices": [struct.pack("<I", 1)],
                "isa.vectors.v1.SparseVector.values": [struct.pack("<f", 1)], "uuid": [str(uuid.UUID(int=1))],
                "payload": [b'{"a": 1}'], "field": ["secret"], "fields": ["secret"], "keyword": ["x"], "text": ["x"],
                "isa.vectors.v1.Keywords.values": ["x"], "is_empty": ["secret"], "is_null": ["secret"], "using": [""],
                "payload_fields": ["secret"], "sparse_vectors": ["sparse"],
                # conditions and handles
                "if_version": ["0" * 40], "if_match": [""], "if_none_match": [""], "etag": ["0" * 32], "sha256": [b""],
                "upload_id": [uuid.uuid4().hex], "cursor": [""], "ack_token": [b"x"], "reply_token": [b"x"],
                **self._keys_by_type(),
                **handles,
            },
            NUMBERS,
        )  # fmt: skip

    def _keys_by_type(self) -> dict[str, list[object]]:
        """A key of the cache holds one type: `<tag>-h` is a hash, and so on."""
        kinds = {"h": ("H",), "l": ("LP", "RP", "LR", "LL", "LT"), "s": ("SA", "SR", "SM", "SCo"), "z": ("Z",)}
        return {
            f"isa.cache.v1.{message}.key": [f"{self.tag}-{kind}"]
            for message in CACHE.message_types_by_name
            for kind, starts in kinds.items()
            if message.startswith(starts)
        }


def hostile(victim: Names, attacker: Names) -> Iterator[str]:
    """Yield texts that a careless name would carry into the victim's things."""
    org, user, name = victim.org, victim.user, victim.tag
    for separator in (":", "-", ".", "_", "/", "|", "::", "$", ",", " ", "\t", "\n", "\r\n"):
        yield f"{org}{separator}{name}"
        yield f"{org}{separator}{user}{separator}{name}"
    yield from (f"../{org}/{name}", f"..\\{org}\\{name}", f"../../{name}", f"/{org}/{name}", f"./../{org}-{name}/x")
    yield from (f"%2e%2e%2f{org}%2f{name}", f"{org}%3A{user}%3A{name}", f"{name}%00", f"{org}%2D{name}")
    yield from (f"{name}\0", f"\0{name}", f"{org}:{user}:{name}\0x", "\0")
    yield from ("*", "?", ">", "**", "%", "_", "[a-z]*", "org-*", f"{org}*", f"{org}.>", "*.>", f"*{name}*", f"{org}:*")
    yield from (f"$JS.API.STREAM.INFO.{org}_{name}", "$SYS.>", "_INBOX.>", f"$KV.{org}_{name}.>", f"KV_{org}_{name}")
    yield from (
        f"lock:{org}:{user}:{name}",
        f"rate:{org}:{user}:{name}",
        f"chan:{org}:{user}:{name}",
        f"isa-tasks::{name}",
    )
    yield from (
        f"{attacker.org}|{org}",
        f'{{org="{org}"}}',
        f'{{org=~".+"}} or {{service="{name}"}}',
        "}",
        "{",
        "${jndi:x}",
    )
    yield from (f"'; DROP TABLE {name}; --", f'"{org}"."{name}"', "x' OR '1'='1", f"pg_catalog.{name}", "*) OR (1=1")
    yield from (
        org.translate(_WIDE) + ":" + name,
        name + "\u200b",
        "\u202e" + name,
        name.upper(),
        f"{name}\u0301",
        "\ufeff" + name,
    )
    yield from ("e\u0301", "é", "ﬁ", "İ", "😀" * 30, "\U0010ffff", "")
    yield from ("a" * 300, "b" * 70_000, f"{name}/" * 200, "." * 500, "..", ".", "-", " ")


_WIDE = {code: code + 0xFEE0 for code in range(0x21, 0x7F)}
"""ASCII to its full-width forms, which some stores fold back."""
