"""Objects in memory. Signed URLs are made and say the right things, but nobody answers at them."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
import zlib
from bisect import bisect_right
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlencode

from isa.objects.v1 import objects_pb2 as pb
from isa_common.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    IsaError,
    NotFound,
    PreconditionFailed,
    ResourceExhausted,
    status_of,
)
from isa_common.testing._transport import Caller

CHUNK = 1 << 20
LARGEST = 64 << 30
PART = 16 << 20
SMALLEST_PART = 5 << 20
BUCKETS = 100
WEEK = 7 * 24 * 3600

_BUCKET = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+( *;[\x20-\x7e]*)?", re.ASCII)
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f\ufffe\uffff]")
_ETAG = re.compile(r"[\w-]{1,128}", re.ASCII)
_UPLOAD_ID = re.compile(r"[\w.~+/=-]{1,1024}", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Object:
    data: bytes
    etag: str
    modified_at: datetime
    content_type: str
    metadata: dict[str, str]
    sha256: bytes = b""


@dataclass(slots=True)
class _Multipart:
    key: str
    properties: pb.Properties
    parts: dict[int, tuple[str, bytes]] = field(default_factory=dict)


@dataclass(slots=True)
class _Bucket:
    created_at: datetime
    objects: dict[str, _Object] = field(default_factory=dict)
    uploads: dict[str, _Multipart] = field(default_factory=dict)


class MemoryObjects:
    """`isa.objects.v1.Objects` in memory."""

    def __init__(self) -> None:
        self._tenants: defaultdict[str, dict[str, _Bucket]] = defaultdict(dict)

    async def create_bucket(self, caller: Caller, request: pb.CreateBucketRequest) -> pb.CreateBucketResponse:
        """Make a bucket."""
        buckets = self._buckets(caller)
        _check_bucket(caller, request.bucket)
        if request.bucket in buckets:
            raise AlreadyExists("This bucket exists.", bucket=request.bucket)
        if len(buckets) >= BUCKETS:
            raise ResourceExhausted(f"An organisation may have {BUCKETS} buckets.")
        buckets[request.bucket] = _Bucket(datetime.now(UTC))
        return pb.CreateBucketResponse(bucket=_named(request.bucket, buckets[request.bucket]))

    async def head_bucket(self, caller: Caller, request: pb.HeadBucketRequest) -> pb.HeadBucketResponse:
        """Find a bucket."""
        return pb.HeadBucketResponse(bucket=_named(request.bucket, self._bucket(caller, request.bucket)))

    async def list_buckets(self, caller: Caller, request: pb.ListBucketsRequest) -> pb.ListBucketsResponse:
        """Return all."""
        found = sorted(self._buckets(caller).items())
        return pb.ListBucketsResponse(buckets=[_named(name, bucket) for name, bucket in found])

    async def delete_bucket(self, caller: Caller, request: pb.DeleteBucketRequest) -> pb.DeleteBucketResponse:
        """Delete an empty one."""
        if self._bucket(caller, request.bucket).objects:
            raise FailedPrecondition("This bucket is not empty.")
        del self._buckets(caller)[request.bucket]
        return pb.DeleteBucketResponse()

    async def upload(self, caller: Caller, requests: AsyncIterator[pb.UploadRequest]) -> pb.UploadResponse:
        """Store what a stream brings."""
        header = await _header(requests)
        key = _key(header.key)
        bucket = self._bucket(caller, header.bucket)
        if header.sha256:
            _check_sha256(header.sha256)
        size = header.size if header.HasField("size") else None
        if size is not None and not 0 <= size <= LARGEST:
            raise InvalidArgument(f"This takes 0 to {LARGEST} bytes.", field="size")
        _check_properties(header.properties)
        _check_condition(header.condition)
        _make_way(bucket, key)
        data = await _body(requests, LARGEST if size is None else size)
        if size is not None and len(data) != size:
            raise InvalidArgument(f"{len(data)} bytes came, and {size} were announced.", field="size")
        if header.sha256 and hashlib.sha256(data).digest() != header.sha256:
            raise InvalidArgument("The bytes are not those that were announced: another SHA-256.", field="sha256")
        made = _object(data, header.properties, header.sha256)
        _put(bucket, key, made, header.condition)
        return pb.UploadResponse(info=_info(key, made))

    async def download(self, caller: Caller, request: pb.DownloadRequest) -> AsyncIterator[pb.DownloadResponse]:
        """Send an object, or a range."""
        key = _key(request.key)
        bucket = self._bucket(caller, request.bucket)
        start, end = request.start, request.end if request.HasField("end") else None
        if end is not None and start < 0:
            raise InvalidArgument("A range that counts from the end goes to the end.", field="end")
        if end is not None and end < start:
            raise InvalidArgument("A range ends behind its start.", field="end")
        for etag in (request.if_match, request.if_none_match):
            _check_etag(etag)
        found = _found(bucket, key)
        if request.if_match and found.etag != request.if_match:
            raise PreconditionFailed("The object's etag is another one.")
        if request.if_none_match and found.etag == request.if_none_match:
            raise PreconditionFailed("The object's etag is this one.")
        size = len(found.data)
        if end is not None and end == start:
            start = end = 0
        else:
            if start >= size > 0 or (start > 0 and not size):
                raise InvalidArgument("The range begins behind the end of the object.", field="start")
            start = max(size + start, 0) if start < 0 else start
            end = size if end is None else min(end, size)
        yield pb.DownloadResponse(header=pb.DownloadHeader(info=_info(key, found), start=start, end=end))
        data = found.data[start:end]
        for at in range(0, len(data), CHUNK):
            yield pb.DownloadResponse(data=data[at : at + CHUNK])
        yield pb.DownloadResponse(finish=pb.Finish(size=len(data), crc32=zlib.crc32(data)))

    async def stat(self, caller: Caller, request: pb.StatRequest) -> pb.StatResponse:
        """Tell what an object is."""
        key = _key(request.key)
        return pb.StatResponse(info=_info(key, _found(self._bucket(caller, request.bucket), key)))

    async def stat_many(self, caller: Caller, request: pb.StatManyRequest) -> pb.StatManyResponse:
        """Tell it of several."""
        return pb.StatManyResponse(outcomes=await _each(caller, request.requests, self.stat, pb.StatOutcome))

    async def list(self, caller: Caller, request: pb.ListRequest) -> pb.ListResponse:
        """Return a page."""
        if not _is_text(request.prefix, 1024):
            raise InvalidArgument("A prefix has at most 1024 bytes, no control characters.", field="prefix")
        bucket = self._bucket(caller, request.bucket)
        if request.delimiter not in ("", "/"):
            raise InvalidArgument("The delimiter is / or empty.", field="delimiter")
        limit = request.limit or 100
        if not 0 < limit <= 1000:
            raise InvalidArgument("A page may have 1 to 1000 objects.", field="limit")
        question = [caller.tenant, request.bucket, request.prefix, request.delimiter]
        after = _read_cursor(request.cursor, question) if request.cursor else b""
        entries: dict[bytes, pb.ObjectInfo | str] = {}
        for key, each in bucket.objects.items():
            if not key.startswith(request.prefix):
                continue
            before, delimiter, _ = key[len(request.prefix) :].partition("/")
            if request.delimiter and delimiter:
                folder = f"{request.prefix}{before}/"
                entries[folder.encode()] = folder
            else:
                entries[key.encode()] = _info(key, each, is_listed=True)
        names = sorted(entries)
        begin = bisect_right(names, after)
        page = names[begin : begin + limit]
        chosen = [entries[name] for name in page]
        return pb.ListResponse(
            objects=[each for each in chosen if isinstance(each, pb.ObjectInfo)],
            prefixes=[each for each in chosen if isinstance(each, str)],
            next_cursor=_write_cursor(page[-1], question) if begin + limit < len(names) else "",
        )

    async def copy(self, caller: Caller, request: pb.CopyRequest) -> pb.CopyResponse:
        """Copy an object."""
        key, target_key = _key(request.key), _key(request.target_key, "target_key")
        source = self._bucket(caller, request.bucket)
        target = self._bucket(caller, request.target_bucket or request.bucket, "target_bucket")
        is_new = request.HasField("properties")
        if source is target and key == target_key and not is_new:
            raise InvalidArgument("An object is copied to another key, or gets other properties.", field="target_key")
        _check_etag(request.if_match)
        found = _found(source, key)
        _check_properties(request.properties)
        _make_way(target, target_key)
        if request.if_match and found.etag != request.if_match:
            raise PreconditionFailed("The object's etag is another one.")
        about = request.properties
        if not is_new:
            about = pb.Properties(content_type=found.content_type, metadata=found.metadata)
        made = replace(_object(found.data, about, found.sha256), etag=found.etag)
        target.objects[target_key] = made
        return pb.CopyResponse(info=_info(target_key, made))

    async def copy_many(self, caller: Caller, request: pb.CopyManyRequest) -> pb.CopyManyResponse:
        """Copy several."""
        return pb.CopyManyResponse(outcomes=await _each(caller, request.requests, self.copy, pb.CopyOutcome))

    async def delete(self, caller: Caller, request: pb.DeleteRequest) -> pb.DeleteResponse:
        """Delete an object."""
        key = _key(request.key)
        self._bucket(caller, request.bucket).objects.pop(key, None)
        return pb.DeleteResponse()

    async def delete_many(self, caller: Caller, request: pb.DeleteManyRequest) -> pb.DeleteManyResponse:
        """Delete several."""
        outcomes = await _each(caller, request.requests, self.delete, pb.DeleteOutcome, most=1000)
        return pb.DeleteManyResponse(outcomes=outcomes)

    async def create_multipart_upload(
        self, caller: Caller, request: pb.CreateMultipartUploadRequest
    ) -> pb.CreateMultipartUploadResponse:
        """Begin an upload in parts."""
        key = _key(request.key)
        bucket = self._bucket(caller, request.bucket)
        _check_properties(request.properties)
        _make_way(bucket, key)
        upload_id = secrets.token_urlsafe(16)
        bucket.uploads[upload_id] = _Multipart(key, request.properties)
        return pb.CreateMultipartUploadResponse(upload_id=upload_id)

    async def upload_part(self, caller: Caller, requests: AsyncIterator[pb.UploadPartRequest]) -> pb.UploadPartResponse:
        """Keep a part."""
        header = await _header(requests)
        _, upload = self._upload(caller, header)
        if not 0 < header.number <= 10_000:
            raise InvalidArgument("A part's number is 1 to 10000.", field="number")
        if not 0 <= header.size <= PART:
            raise InvalidArgument(f"This takes 0 to {PART} bytes.", field="size")
        data = await _body(requests, header.size)
        if len(data) != header.size:
            raise InvalidArgument(f"{len(data)} bytes came, and {header.size} were announced.", field="size")
        if upload is None:
            raise NotFound("No such upload.")
        etag = hashlib.md5(data, usedforsecurity=False).hexdigest()
        upload.parts[header.number] = (etag, data)
        return pb.UploadPartResponse(part=pb.Part(number=header.number, size=len(data), etag=etag))

    async def list_parts(self, caller: Caller, request: pb.ListPartsRequest) -> pb.ListPartsResponse:
        """Return a page of parts."""
        _, upload = self._upload(caller, request)
        limit = request.limit or 1000
        if not 0 < limit <= 1000:
            raise InvalidArgument("A page may have 1 to 1000 parts.", field="limit")
        question = [caller.tenant, request.bucket, request.key, request.upload_id]
        after = int(_read_cursor(request.cursor, question)) if request.cursor else 0
        if upload is None:
            raise NotFound("No such upload.")
        left = [
            pb.Part(number=number, size=len(data), etag=etag)
            for number, (etag, data) in sorted(upload.parts.items())
            if number > after
        ]
        more = _write_cursor(str(left[limit - 1].number).encode(), question) if len(left) > limit else ""
        return pb.ListPartsResponse(parts=left[:limit], next_cursor=more)

    async def complete_multipart_upload(
        self, caller: Caller, request: pb.CompleteMultipartUploadRequest
    ) -> pb.CompleteMultipartUploadResponse:
        """Make parts an object."""
        bucket, upload = self._upload(caller, request)
        if not 0 < len(request.parts) <= 10_000:
            raise InvalidArgument("An object has 1 to 10000 parts.", field="parts")
        numbers = [part.number for part in request.parts]
        if sorted(set(numbers)) != numbers:
            raise InvalidArgument("Parts come in the order of their numbers, each once.", field="parts")
        for part in request.parts:
            _check_etag(part.etag or "-")
        _make_way(bucket, request.key)
        _check_condition(request.condition)
        if upload is None:
            raise NotFound("No such upload.")
        pieces = []
        for part in request.parts:
            etag, data = upload.parts.get(part.number, ("", b""))
            if etag != part.etag:
                raise InvalidArgument("A part was not uploaded, or has another etag.", field="parts")
            if len(data) < SMALLEST_PART and part is not request.parts[-1]:
                raise InvalidArgument("Each part but the last has at least 5 MiB.", field="parts")
            pieces.append(data)
        made = _object(b"".join(pieces), upload.properties)
        _put(bucket, request.key, made, request.condition)
        del bucket.uploads[request.upload_id]
        return pb.CompleteMultipartUploadResponse(info=_info(request.key, made))

    async def abort_multipart_upload(
        self, caller: Caller, request: pb.AbortMultipartUploadRequest
    ) -> pb.AbortMultipartUploadResponse:
        """Forget the parts."""
        bucket, upload = self._upload(caller, request)
        if upload is not None:
            del bucket.uploads[request.upload_id]
        return pb.AbortMultipartUploadResponse()

    async def presign_get(self, caller: Caller, request: pb.PresignGetRequest) -> pb.PresignGetResponse:
        """Make a URL."""
        key = _key(request.key)
        ends, seconds = _expiry(request)
        self._bucket(caller, request.bucket)
        if not _is_text(request.download_as, 255) or "/" in request.download_as:
            raise InvalidArgument("A file's name has at most 255 bytes and no /.", field="download_as")
        if request.content_type:
            _check_type(request.content_type)
        response = pb.PresignGetResponse(url=_url(caller, request.bucket, key, seconds))
        response.expires_at.FromDatetime(ends)
        return response

    async def presign_get_many(self, caller: Caller, request: pb.PresignGetManyRequest) -> pb.PresignGetManyResponse:
        """Make several."""
        outcomes = await _each(caller, request.requests, self.presign_get, pb.PresignGetOutcome)
        return pb.PresignGetManyResponse(outcomes=outcomes)

    async def presign_put(self, caller: Caller, request: pb.PresignPutRequest) -> pb.PresignPutResponse:
        """Make a URL."""
        key = _key(request.key)
        ends, seconds = _expiry(request)
        bucket = self._bucket(caller, request.bucket)
        headers = {}
        if request.HasField("size"):
            if not 0 <= request.size <= LARGEST:
                raise InvalidArgument(f"An object has 0 to {LARGEST} bytes.", field="size")
            headers["Content-Length"] = str(request.size)
        if request.content_type:
            _check_type(request.content_type)
            headers["Content-Type"] = request.content_type
        if request.sha256:
            _check_sha256(request.sha256)
            headers["x-amz-checksum-sha256"] = base64.b64encode(request.sha256).decode()
        _make_way(bucket, key)
        response = pb.PresignPutResponse(url=_url(caller, request.bucket, key, seconds), headers=headers)
        response.expires_at.FromDatetime(ends)
        return response

    async def presign_put_many(self, caller: Caller, request: pb.PresignPutManyRequest) -> pb.PresignPutManyResponse:
        """Make several."""
        outcomes = await _each(caller, request.requests, self.presign_put, pb.PresignPutOutcome)
        return pb.PresignPutManyResponse(outcomes=outcomes)

    async def presign_post(self, caller: Caller, request: pb.PresignPostRequest) -> pb.PresignPostResponse:
        """Make a form."""
        ends, seconds = _expiry(request)
        if not 0 <= request.min_size <= request.max_size <= LARGEST or not request.max_size:
            raise InvalidArgument(f"Sizes go from 0 to {LARGEST}, the largest at least 1.", field="max_size")
        fields = {"policy": secrets.token_urlsafe(16)}
        if request.WhichOneof("target") == "prefix":
            is_beginning = not {"", ".", ".."} & set(request.prefix.split("/")[:-1])
            if not _is_text(request.prefix, 1024) or not is_beginning:
                raise InvalidArgument("No key begins like this.", field="prefix")
            self._bucket(caller, request.bucket)
        else:
            fields["key"] = _key(request.key)
            _make_way(self._bucket(caller, request.bucket), request.key)
        if request.content_type and not request.content_type.endswith("/*"):
            _check_type(request.content_type)
            fields["Content-Type"] = request.content_type
        response = pb.PresignPostResponse(url=_url(caller, request.bucket, "", seconds), fields=fields)
        response.expires_at.FromDatetime(ends)
        return response

    async def presign_post_many(self, caller: Caller, request: pb.PresignPostManyRequest) -> pb.PresignPostManyResponse:
        """Make several."""
        outcomes = await _each(caller, request.requests, self.presign_post, pb.PresignPostOutcome)
        return pb.PresignPostManyResponse(outcomes=outcomes)

    def _buckets(self, caller: Caller) -> dict[str, _Bucket]:
        return self._tenants[caller.tenant]

    def _bucket(self, caller: Caller, name: str, where: str = "bucket") -> _Bucket:
        buckets = self._buckets(caller)
        _check_bucket(caller, name, where)
        if name not in buckets:
            raise NotFound("No such bucket.", bucket=name)
        return buckets[name]

    def _upload(self, caller: Caller, given: Any) -> tuple[_Bucket, _Multipart | None]:
        key = _key(given.key)
        bucket = self._bucket(caller, given.bucket)
        if not _UPLOAD_ID.fullmatch(given.upload_id) or ".." in given.upload_id:
            raise InvalidArgument("This is no id of an upload.", field="upload_id")
        upload = bucket.uploads.get(given.upload_id)
        return bucket, upload if upload is not None and upload.key == key else None


async def _each(
    caller: Caller,
    requests: Sequence[Any],
    one: Callable[[Caller, Any], Awaitable[Any]],
    outcome: Callable[..., Any],
    *,
    most: int = 256,
) -> Sequence[Any]:
    if len(requests) > most:
        raise InvalidArgument(f"At most {most} at a time.", field="requests")
    outcomes = []
    for request in requests:
        try:
            outcomes.append(outcome(ok=await one(caller, request)))
        except IsaError as error:
            outcomes.append(outcome(error=status_of(error)))
    return outcomes


async def _header(requests: AsyncIterator[Any]) -> Any:
    request = await anext(requests, None)
    if request is None or request.WhichOneof("part") != "header":
        raise InvalidArgument("The first message of an upload is its header.", field="header")
    return request.header


async def _body(requests: AsyncIterator[Any], most: int) -> bytes:
    data = bytearray()
    async for request in requests:
        kind = request.WhichOneof("part")
        if kind == "finish":
            finish = request.finish
            if finish.size != len(data):
                raise InvalidArgument(f"{len(data)} bytes came, and {finish.size} were sent.", field="finish.size")
            if finish.HasField("crc32") and finish.crc32 != zlib.crc32(data):
                raise InvalidArgument("The bytes are not those that were sent: another CRC-32.", field="finish.crc32")
            if await anext(requests, None) is not None:
                raise InvalidArgument("Nothing comes after the finish.", field="finish")
            return bytes(data)
        if kind != "data":
            raise InvalidArgument("After the header come bytes, and a finish.", field="data")
        data += request.data
        if len(data) > most:
            raise InvalidArgument(f"More than {most} bytes came.", field="size")
    raise InvalidArgument("The upload was cut off: its last message is a finish.", field="finish")


def _check_bucket(caller: Caller, name: str, where: str = "bucket") -> None:
    if not _BUCKET.fullmatch(name) or name.endswith(("-s3alias", "--ol-s3", "--x-s3", "--table-s3")):
        raise InvalidArgument("A bucket is named by a-z, 0-9 and, inside, hyphens.", field=where)
    most = 62 - len(caller.org or f"isa-{caller.workload.replace('-', '--')}")
    if len(name) > most:
        raise InvalidArgument(f"The names of your buckets may have {most} characters.", field=where)


def _is_text(text: str, most: int) -> bool:
    return len(text.encode()) <= most and not _UNPRINTABLE.search(text)


def _key(key: str, where: str = "key") -> str:
    if not key or not _is_text(key, 1024):
        raise InvalidArgument("A key has 1 to 1024 bytes, and no control characters.", field=where)
    segments = key.split("/")
    if {"", ".", ".."} & set(segments):
        raise InvalidArgument("A key has no segment that is empty, `.` or `..`.", field=where)
    if max(len(segment.encode()) for segment in segments) > 255:
        raise InvalidArgument("A segment of a key has at most 255 bytes.", field=where)
    if key.endswith("__XLDIR__"):
        raise InvalidArgument("A key does not end with __XLDIR__.", field=where)
    return key


def _check_type(content_type: str) -> None:
    if len(content_type) > 255 or not _TYPE.fullmatch(content_type):
        raise InvalidArgument("A content type is like text/plain or text/html; charset=utf-8.", field="content_type")


def _check_sha256(digest: bytes) -> None:
    if len(digest) != 32:
        raise InvalidArgument("A SHA-256 has 32 bytes.", field="sha256")


def _check_etag(etag: str) -> None:
    if etag and not _ETAG.fullmatch(etag):
        raise InvalidArgument("This is no etag that an object has.", field="etag")


def _check_condition(condition: pb.Condition) -> None:
    if not condition.absent:
        _check_etag(condition.etag)


def _check_properties(given: pb.Properties) -> None:
    size = 0
    for name, value in given.metadata.items():
        if not _NAME.fullmatch(name) or name.startswith("isa-"):
            raise InvalidArgument(
                f"{name[:64]!r} is no name: a-z, 0-9 and, inside, hyphens; and not isa- in front.", field="metadata"
            )
        size += len(name) + len(quote(value, safe="/:;,=@+*()!'&?$#[]~"))
    if size > 2048:
        raise InvalidArgument("Metadata have at most 2048 bytes, percent-encoded.", field="metadata")
    if given.content_type:
        _check_type(given.content_type)


def _make_way(bucket: _Bucket, key: str) -> None:
    if any(each.startswith(f"{key}/") for each in bucket.objects):
        raise FailedPrecondition("There are objects below this key.", field="key")
    segments = key.split("/")
    if any("/".join(segments[:count]) in bucket.objects for count in range(1, len(segments))):
        raise FailedPrecondition("This key lies below an object.", field="key")


def _found(bucket: _Bucket, key: str) -> _Object:
    if key not in bucket.objects:
        raise NotFound("No such object.")
    return bucket.objects[key]


def _object(data: bytes, properties: pb.Properties, sha256: bytes = b"") -> _Object:
    return _Object(
        data=data,
        etag=hashlib.md5(data, usedforsecurity=False).hexdigest(),
        modified_at=datetime.now(UTC),
        content_type=properties.content_type or "application/octet-stream",
        metadata=dict(properties.metadata),
        sha256=sha256,
    )


def _put(bucket: _Bucket, key: str, made: _Object, condition: pb.Condition) -> None:
    present = bucket.objects.get(key)
    if condition.absent and present is not None:
        raise AlreadyExists("There is an object with this key.")
    if not condition.absent and condition.etag and (present is None or present.etag != condition.etag):
        raise PreconditionFailed("The object's etag is another one.")
    bucket.objects[key] = made


def _info(key: str, each: _Object, *, is_listed: bool = False) -> pb.ObjectInfo:
    info = pb.ObjectInfo(key=key, size=len(each.data), etag=each.etag)
    info.modified_at.FromDatetime(each.modified_at)
    if not is_listed:
        info.content_type = each.content_type
        info.metadata.update(each.metadata)
        info.sha256 = each.sha256
    return info


def _named(name: str, bucket: _Bucket) -> pb.Bucket:
    named = pb.Bucket(name=name)
    named.created_at.FromDatetime(bucket.created_at)
    return named


def _expiry(given: Any) -> tuple[datetime, int]:
    seconds = given.expires_in.seconds if given.HasField("expires_in") else 900
    if not 1 <= seconds <= WEEK:
        raise InvalidArgument("A signature holds for a second to 7 days.", field="expires_in")
    return datetime.now(UTC) + timedelta(seconds=seconds), seconds


def _url(caller: Caller, bucket: str, key: str, seconds: int) -> str:
    """A URL in a domain that nobody has."""
    signature = urlencode({"X-Amz-Expires": seconds, "X-Amz-Signature": secrets.token_hex(32)})
    return f"https://objects.invalid/{caller.tenant}-{bucket}/{quote(key)}?{signature}"


def _mark(question: Iterable[str], last: bytes) -> bytes:
    return hashlib.blake2b("\0".join(question).encode() + b"\0" + last, digest_size=8).digest()


def _write_cursor(last: bytes, question: Iterable[str]) -> str:
    return base64.urlsafe_b64encode(_mark(question, last) + last).decode()


def _read_cursor(cursor: str, question: Iterable[str]) -> bytes:
    try:
        raw = base64.b64decode(cursor, altchars=b"-_", validate=True)
    except ValueError:
        raise InvalidArgument("This is no cursor that a list returned.", field="cursor") from None
    if raw[:8] != _mark(question, raw[8:]):
        raise InvalidArgument("This cursor belongs to another list.", field="cursor")
    return raw[8:]
