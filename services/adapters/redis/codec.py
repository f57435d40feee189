"""Names, durations, cursors and patterns between the contract and Redis."""

from __future__ import annotations

import base64
import functools
import hashlib
import math
import re
from collections.abc import Sequence
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration

from isa.cache.v1 import cache_pb2
from kernel import Caller, InvalidArgument, PermissionDenied

LONGEST_NAME = 512
"""Bytes of a key, a channel, a pattern and the name of a lock or limit."""
LONGEST_TTL = timedelta(days=36_500)

DATA, CHANNEL, LOCK, FENCE, WAKE = "", "chan:", "lock:", "fence:", "wake:"
FIXED, SLIDING, BUCKET = "rate.fixed:", "rate.sliding:", "rate.bucket:"
"""What names begin with, by what they name: all but data by a word that no organisation and no workload is called."""

_USER = re.compile(r"user-[a-z0-9]{1,32}")
_GLOB = re.compile(r"([*?\[\]\\^-])")


def isolate(
    caller: Caller, scope: int, names: Sequence[str], *, kind: str = DATA, field: str = "key", is_many: bool = False
) -> list[str]:
    """The names in Redis of names of a caller; InvalidArgument for a bad one, with its position where it has one.

    `{org}:{user}:{name}` is a user's, `{org}::{name}` the organisation's, `isa-{workload}::{name}` a program's own.
    """
    head = kind + tenant(caller.org, caller.user, caller.workload, scope)
    if (
        names
        and all(names)
        and max(map(len, names)) <= LONGEST_NAME // 4  # a character has at most 4 bytes
        and "\0" not in "".join(names)
    ):
        return [head + name for name in names]
    for index, name in enumerate(names):
        _check(name, f"{field}[{index}]" if is_many else field)
    return [head + name for name in names]


@functools.lru_cache(maxsize=16_384)
def tenant(org: str, user: str, workload: str, scope: int) -> str:
    """What the names of a tenant's scope begin with; no such text is the beginning of another one."""
    if scope not in cache_pb2.Scope.values():
        raise InvalidArgument("There is no such scope.", field="scope")
    if scope == cache_pb2.SCOPE_USER and not user:
        raise PermissionDenied("The scope of a user needs a token of one.", field="scope")
    if user and not (org and _USER.fullmatch(user)):
        raise PermissionDenied("This token names no user of an organisation.")
    owner = Caller(org=org, workload=workload).tenant
    return f"{owner}:{'' if scope == cache_pb2.SCOPE_ORGANISATION else user}:"


def _check(name: str, field: str) -> None:
    if not name:
        raise InvalidArgument("A name has at least one character.", field=field)
    if "\0" in name:
        raise InvalidArgument("A name has no NUL in it.", field=field)
    if len(name.encode()) > LONGEST_NAME:
        raise InvalidArgument(f"A name has at most {LONGEST_NAME} bytes.", field=field)


def milliseconds(duration: Duration, field: str, *, longest: timedelta = LONGEST_TTL, least: int = 1) -> int:
    """A time span as Redis counts it; InvalidArgument for none, a negative one and one that is too long."""
    count = duration.seconds * 1000 + math.ceil(duration.nanos / 1_000_000)
    if count < least or duration.seconds < 0 or duration.nanos < 0:
        raise InvalidArgument(f"This is at least {least} ms.", field=field)
    if count > longest / timedelta(milliseconds=1):
        raise InvalidArgument(f"This is at most {longest.total_seconds():.0f} seconds.", field=field)
    return count


def duration(count: float) -> Duration:
    """A time span of so many milliseconds."""
    return Duration(seconds=int(count // 1000), nanos=int(count % 1000 * 1_000_000))


def version(value: bytes) -> str:
    """What `redis.sha1hex` makes of a value."""
    return hashlib.sha1(value, usedforsecurity=False).hexdigest()


def literal(text: str) -> str:
    """A pattern of Redis that only this text fits."""
    return _GLOB.sub(r"\\\1", text)


def write_cursor(position: bytes, begins: str) -> str:
    """Redis's cursor as text, bound to what the names begin with."""
    return base64.urlsafe_b64encode(_bound(begins) + position).decode("ascii")


def read_cursor(text: str, begins: str) -> bytes:
    """Redis's cursor; InvalidArgument when it is none, or belongs to another tenant or prefix."""
    try:
        raw = base64.urlsafe_b64decode(text)
    except ValueError:
        raw = b""
    if raw[:8] != _bound(begins) or not re.fullmatch(rb"[1-9][0-9]{0,19}", raw[8:]) or int(raw[8:]) >= 2**64:
        raise InvalidArgument("This cursor belongs to no page of this scope and prefix.", field="cursor")
    return raw[8:]


def _bound(begins: str) -> bytes:
    return hashlib.blake2b(begins.encode(), digest_size=8).digest()


def pattern(text: str) -> tuple[str, re.Pattern[str]]:
    r"""What every name begins with that fits a pattern, and the pattern: `*`, `?`, `[a-z]`, `[^a-z]` and `\`.

    Names are matched here and not by Redis, whose matching of a pattern with many `*` can take longer than anyone may
    hold it: what stands between two `*` is found as early as it can be, and never looked for again.
    """
    parts, head, index, is_literal = [""], "", 0, True
    while index < len(text):
        character = text[index]
        index += 1
        if character == "*":
            parts.append("")
            is_literal = False
        elif character == "?":
            parts[-1] += "."
            is_literal = False
        elif character == "[":
            members, index = _members(text, index)
            parts[-1] += members
            is_literal = False
        else:
            if character == "\\" and index < len(text):
                character = text[index]
                index += 1
            parts[-1] += re.escape(character)
            if is_literal:
                head += character
    first, *between = parts
    last = f".*{between.pop()}" if between else ""
    return head, re.compile(first + "".join(f"(?>.*?{part})" for part in between if part) + last, re.DOTALL)


def _members(text: str, index: int) -> tuple[str, int]:
    """The characters of a class as a regular expression, and where it ends; one that never ends goes to the end."""
    is_not = text[index : index + 1] == "^"
    index += is_not
    members: list[str] = []
    while index < len(text) and text[index] != "]":
        if text[index] == "\\" and index + 1 < len(text):
            members.append(re.escape(text[index + 1]))
            index += 2
        elif text[index + 1 : index + 2] == "-" and index + 2 < len(text):
            low, high = sorted((text[index], text[index + 2]))
            members.append(f"{re.escape(low)}-{re.escape(high)}")
            index += 3
        else:
            members.append(re.escape(text[index]))
            index += 1
    if not members:
        return ("." if is_not else "(?!)"), index + 1
    return f"[{'^' if is_not else ''}{''.join(members)}]", index + 1
