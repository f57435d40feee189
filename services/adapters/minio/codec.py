"""Names, properties and cursors between the contract and S3."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from datetime import UTC
from typing import Any
from urllib.parse import quote, unquote

from isa.objects.v1 import objects_pb2
from isa_common import InvalidArgument
from kernel import Caller

LONGEST_BUCKET = 63
LONGEST_KEY = 1024
LONGEST_SEGMENT = 255
LONGEST_METADATA = 2048
LONGEST_TYPE = 255
DEFAULT_TYPE = "application/octet-stream"
SHA256 = "isa-sha256"
"""Name of our own piece of metadata: the hash that the upload gave."""
EXPIRES_IN = 15 * 60
LONGEST_EXPIRY = 7 * 24 * 3600
"""Seconds that a signature may hold, and a session that makes one."""

_BUCKET = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_RESERVED = ("-s3alias", "--ol-s3", "--x-s3", "--table-s3")
"""Endings that S3 keeps for itself."""
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f\ufffe\uffff]")
"""What XML cannot carry, and the control characters that it can."""
_FOLDER = "__XLDIR__"
"""MinIO shows a key with this ending under another name."""
_NAME = re.compile(r"(?!isa-)[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+( *;[\x20-\x7e]*)?", re.ASCII)
_READABLE = "/:;,=@+*()!'&?$#[]~"


def tenant_of(caller: Caller) -> str:
    """How a caller's buckets begin: with the organisation's id, or with a workload's name outside that grammar."""
    if caller.org:
        return caller.tenant
    tenant = caller.tenant.removeprefix("isa-")
    return f"isa-{tenant.replace('-', '--')}"  # doubled, so that a single one ends the name


def isolate(caller: Caller, bucket: str, *, field: str = "bucket") -> str:
    """S3's name of a caller's bucket; InvalidArgument when there is none."""
    tenant = tenant_of(caller)
    most = LONGEST_BUCKET - len(tenant) - 1
    if not _BUCKET.fullmatch(bucket) or bucket.endswith(_RESERVED):
        raise InvalidArgument("A bucket is named by a-z, 0-9 and, inside, hyphens.", field=field)
    if len(bucket) > most:
        raise InvalidArgument(f"The names of your buckets may have {most} characters.", field=field)
    return f"{tenant}-{bucket}"


def checked_key(key: str, *, field: str = "key") -> str:
    """A key as it is; InvalidArgument when a store would refuse it, or read it as another one."""
    if not is_text(key, LONGEST_KEY) or not key:
        raise InvalidArgument(f"A key has 1 to {LONGEST_KEY} bytes, and no control characters.", field=field)
    for segment in key.split("/"):
        if not _is_segment(segment):
            raise InvalidArgument("A key has no segment that is empty, `.` or `..`.", field=field)
        if len(segment.encode()) > LONGEST_SEGMENT:
            raise InvalidArgument(f"A segment of a key has at most {LONGEST_SEGMENT} bytes.", field=field)
    if key.endswith(_FOLDER):
        raise InvalidArgument(f"A key does not end with {_FOLDER}.", field=field)
    return key


def is_text(text: str, most: int) -> bool:
    """Whether text is short enough, and can be written everywhere."""
    return len(text.encode()) <= most and not _UNPRINTABLE.search(text)


def can_begin_keys(prefix: str) -> bool:
    """Whether there may be keys that begin like this."""
    return all(_is_segment(segment) for segment in prefix.split("/")[:-1])


def _is_segment(segment: str) -> bool:
    return segment not in ("", ".", "..")


def ancestors(key: str) -> list[str]:
    """The keys that `key` would lie below: `a` and `a/b` of `a/b/c`."""
    segments = key.split("/")
    return ["/".join(segments[:count]) for count in range(1, len(segments))]


def properties(given: objects_pb2.Properties, *, sha256: bytes = b"") -> dict[str, Any]:
    """What S3 is told of a new object besides its bytes."""
    metadata = {name: quote(value, safe=_READABLE) for name, value in given.metadata.items()}
    for name in metadata:
        if not _NAME.fullmatch(name):
            raise InvalidArgument(
                f"{name[:64]!r} is no name: a-z, 0-9 and, inside, hyphens; and not isa- in front.", field="metadata"
            )
    if sum(len(name) + len(value) for name, value in metadata.items()) > LONGEST_METADATA:
        raise InvalidArgument(f"Metadata have at most {LONGEST_METADATA} bytes, percent-encoded.", field="metadata")
    if sha256:
        metadata[SHA256] = checked_sha256(sha256).hex()
    return {"ContentType": checked_type(given.content_type or DEFAULT_TYPE), "Metadata": metadata}


def checked_type(content_type: str) -> str:
    """A content type as it is, or InvalidArgument."""
    if len(content_type) > LONGEST_TYPE or not _TYPE.fullmatch(content_type):
        raise InvalidArgument("A content type is like text/plain or text/html; charset=utf-8.", field="content_type")
    return content_type


def checked_sha256(digest: bytes) -> bytes:
    """A hash as it is, or InvalidArgument."""
    if len(digest) != hashlib.sha256().digest_size:
        raise InvalidArgument("A SHA-256 has 32 bytes.", field="sha256")
    return digest


def object_info(key: str, facts: Mapping[str, Any]) -> objects_pb2.ObjectInfo:
    """An object, from S3's answer about it."""
    metadata = dict(facts.get("Metadata", ()))
    sha256 = metadata.pop(SHA256, "")
    info = objects_pb2.ObjectInfo(
        key=key,
        size=facts.get("Size", facts.get("ContentLength", 0)),
        etag=facts["ETag"].strip('"'),
        content_type=facts.get("ContentType", ""),
        metadata={name.lower(): unquote(value) for name, value in metadata.items()},
        sha256=bytes.fromhex(sha256) if re.fullmatch("[0-9a-f]{64}", sha256) else b"",
    )
    info.modified_at.FromDatetime(facts["LastModified"].astimezone(UTC))
    return info


def quoted(etag: str) -> str:
    """An etag as S3 compares it."""
    if not re.fullmatch(r"[\w-]{1,128}", etag, re.ASCII):
        raise InvalidArgument("This is no etag that an object has.", field="etag")
    return f'"{etag}"'


def expiry(
    given: objects_pb2.PresignGetRequest | objects_pb2.PresignPutRequest | objects_pb2.PresignPostRequest,
) -> int:
    """Seconds for which a signature holds."""
    wanted = given.expires_in.seconds if given.HasField("expires_in") else EXPIRES_IN
    if not 1 <= wanted <= LONGEST_EXPIRY:
        raise InvalidArgument("A signature holds for a second to 7 days.", field="expires_in")
    return wanted


def is_upload_id(text: str) -> bool:
    """Whether a store may have made this id."""
    return bool(re.fullmatch(r"[\w.~+/=-]{1,1024}", text, re.ASCII)) and ".." not in text


class Cursor:
    """Where a page ended, in the store's words, bound to the question that it belongs to."""

    def __init__(self, *question: str) -> None:
        self._question = "\0".join(question).encode()

    def write(self, token: str) -> str:
        """The text for the caller."""
        return base64.urlsafe_b64encode(self._mark(token.encode()) + token.encode()).decode("ascii")

    def read(self, text: str) -> str:
        """The store's words; InvalidArgument when they are an answer to something else."""
        try:
            raw = base64.b64decode(text, altchars=b"-_", validate=True)
            token = raw[8:].decode()
        except ValueError:
            raise InvalidArgument("This is no cursor that a list returned.", field="cursor") from None
        if raw[:8] != self._mark(raw[8:]):
            raise InvalidArgument("This cursor belongs to another list.", field="cursor")
        return token

    def _mark(self, token: bytes) -> bytes:
        return hashlib.blake2b(self._question + b"\0" + token, digest_size=8).digest()
