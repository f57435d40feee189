"""Objects of the caller's organisation, in buckets."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf.message import Message

from isa.objects.v1 import objects_pb2 as pb
from isa_common._capability import Capability
from isa_common._coalesce import Coalescer
from isa_common._contract import methods
from isa_common._messages import outcomes_of, to_duration
from isa_common._transport import Transport
from isa_common.errors import InvalidArgument, IsaError, NotFound, Unavailable

Data = bytes | Path | AsyncIterator[bytes]
"""What is stored: bytes, a file, or bytes as they come."""

CHUNK = 1 << 20
"""Bytes of a message."""
GATHERED = 256 * 1024
"""Bytes that a message has at least, where they come in small pieces."""
_TRANSFER = timedelta(0)
"""A transfer may take as long as it moves; who stands still is ended by the server."""
_TRIES = 4
"""Attempts in a row that moved nothing, before an outage is told."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Bucket:
    """A place for objects."""

    name: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What is known of an object without reading it."""

    key: str
    size: int
    etag: str
    """Changes whenever the object does."""
    modified_at: datetime
    content_type: str = ""
    """Empty in a list, as are the fields below."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    sha256: bytes = b""
    """Where the upload gave one."""


@dataclass(frozen=True, slots=True)
class ObjectPage:
    """Some of a bucket's objects."""

    objects: list[ObjectInfo]
    prefixes: list[str]
    """With a delimiter: what other keys begin with, like folders."""
    next_cursor: str
    """Where the next page begins; empty on the last one."""


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of an upload in parts."""

    number: int
    size: int
    etag: str


@dataclass(frozen=True, slots=True)
class SignedUrl:
    """A URL for one request without a token."""

    url: str
    expires_at: datetime
    headers: Mapping[str, str] = field(default_factory=dict)
    """What the request must send, exactly."""


@dataclass(frozen=True, slots=True)
class SignedForm:
    """A form by which a browser stores an object."""

    url: str
    expires_at: datetime
    fields: Mapping[str, str]
    """What stands in the form before the file."""


class Objects(Capability):
    """Buckets, and objects in them, of any size."""

    _methods = methods(pb.DESCRIPTOR.services_by_name["Objects"], capability="objects")

    def __init__(self, transport: Transport, *, acting_for: Mapping[str, str] = {}) -> None:
        super().__init__(transport, acting_for=acting_for)
        self._coalescers: dict[str, Coalescer[Any, Any]] = {}

    async def create_bucket(self, bucket: str, *, timeout: timedelta | None = None) -> Bucket:
        """Make a bucket; AlreadyExists when there is one of this name."""
        response = await self._call("CreateBucket", pb.CreateBucketRequest(bucket=bucket), timeout)
        return _bucket(response.bucket)

    async def head_bucket(self, bucket: str, *, timeout: timedelta | None = None) -> Bucket:
        """Return a bucket, or raise NotFound."""
        return _bucket((await self._call("HeadBucket", pb.HeadBucketRequest(bucket=bucket), timeout)).bucket)

    async def list_buckets(self, *, timeout: timedelta | None = None) -> Sequence[Bucket]:
        """Return the organisation's buckets, by name."""
        response = await self._call("ListBuckets", pb.ListBucketsRequest(), timeout)
        return [_bucket(bucket) for bucket in response.buckets]

    async def delete_bucket(self, bucket: str, *, timeout: timedelta | None = None) -> None:
        """Delete a bucket; FailedPrecondition when it is not empty."""
        await self._call("DeleteBucket", pb.DeleteBucketRequest(bucket=bucket), timeout)

    async def put(
        self,
        bucket: str,
        key: str,
        data: Data,
        *,
        content_type: str = "",
        metadata: Mapping[str, str] = {},
        if_absent: bool = False,
        if_match: str = "",
        size: int | None = None,
        sha256: bytes = b"",
        timeout: timedelta | None = None,
    ) -> ObjectInfo:
        """Store an object; readers see it whole, or not at all.

        With `if_absent` an object that is there stays, and AlreadyExists is raised; with `if_match` only the one with
        this etag is replaced, and PreconditionFailed says that it is another one. `size` of what comes from an
        iterator, where it is known, lets the server refuse at once what there is no room for. What a `sha256` is
        given for must have it. Bytes and files are sent again after an outage, if no condition is given.
        """
        if isinstance(data, bytes):
            size = len(data)
        elif isinstance(data, Path):
            size = (await asyncio.to_thread(data.stat)).st_size
        header = pb.UploadHeader(
            bucket=bucket,
            key=key,
            properties=pb.Properties(content_type=content_type, metadata=dict(metadata)),
            condition=_condition(if_absent=if_absent, if_match=if_match),
            size=size,
            sha256=sha256,
        )
        tries = _TRIES if isinstance(data, bytes | Path) and not if_absent and not if_match else 1
        response = await self._sent("Upload", pb.UploadRequest, header, data, timeout, tries=tries)
        return _info(response.info)

    async def get(
        self, bucket: str, key: str, *, start: int = 0, end: int | None = None, timeout: timedelta | None = None
    ) -> bytes:
        """Return an object's bytes, or some of them: from `start` (negative: before the end) to `end`."""
        whole = io.BytesIO()
        async with contextlib.aclosing(self.read(bucket, key, start=start, end=end, timeout=timeout)) as reading:
            async for data in reading:
                whole.write(data)
        return whole.getvalue()

    async def read(
        self,
        bucket: str,
        key: str,
        *,
        start: int = 0,
        end: int | None = None,
        if_match: str = "",
        if_none_match: str = "",
        timeout: timedelta | None = None,
    ) -> AsyncGenerator[bytes, None]:
        """Return an object's bytes as they come, checked; after an outage it goes on where it was.

        PreconditionFailed says that the object has another etag than `if_match`, or that of `if_none_match`.
        """
        request = pb.DownloadRequest(
            bucket=bucket, key=key, start=start, end=end, if_match=if_match, if_none_match=if_none_match
        )
        async with contextlib.aclosing(self._received(request, timeout)) as parts:
            async for part in parts:
                if isinstance(part, bytes):
                    yield part

    async def download(
        self, bucket: str, key: str, path: Path, *, if_match: str = "", timeout: timedelta | None = None
    ) -> ObjectInfo:
        """Write an object to a file, which is replaced when everything is there."""
        request = pb.DownloadRequest(bucket=bucket, key=key, if_match=if_match)
        partial = path.with_name(f"{path.name}.{os.urandom(4).hex()}.part")
        found: ObjectInfo | None = None
        try:
            with await asyncio.to_thread(partial.open, "wb") as file:
                async with contextlib.aclosing(self._received(request, timeout)) as parts:
                    async for part in parts:
                        if isinstance(part, bytes):
                            await asyncio.to_thread(file.write, part)
                        else:
                            found = part
            await asyncio.to_thread(partial.replace, path)
        finally:
            await asyncio.to_thread(partial.unlink, missing_ok=True)
        assert found is not None, "a download begins with what the object is"
        return found

    async def stat(self, bucket: str, key: str, *, timeout: timedelta | None = None) -> ObjectInfo:
        """Tell what an object is."""
        return _info((await self._together("Stat", pb.StatRequest(bucket=bucket, key=key), timeout)).info)

    async def exists(self, bucket: str, key: str, *, timeout: timedelta | None = None) -> bool:
        """Tell whether there is such an object."""
        try:
            await self.stat(bucket, key, timeout=timeout)
        except NotFound:
            return False
        return True

    async def stat_many(
        self, bucket: str, keys: Sequence[str], *, timeout: timedelta | None = None
    ) -> Sequence[ObjectInfo | IsaError]:
        """Tell what several objects are, and why not of those of which it cannot be told."""
        answers = await self._many("Stat", [pb.StatRequest(bucket=bucket, key=key) for key in keys], timeout)
        return [each if isinstance(each, IsaError) else _info(each.info) for each in answers]

    async def page(
        self,
        bucket: str,
        prefix: str = "",
        *,
        delimiter: str = "",
        limit: int = 0,
        cursor: str = "",
        timeout: timedelta | None = None,
    ) -> ObjectPage:
        """Return a page of a bucket's objects, by key: 100, at most 1000. The delimiter `/` makes folders."""
        request = pb.ListRequest(bucket=bucket, prefix=prefix, delimiter=delimiter, limit=limit, cursor=cursor)
        response = await self._call("List", request, timeout)
        return ObjectPage([_info(each) for each in response.objects], list(response.prefixes), response.next_cursor)

    async def list(
        self, bucket: str, prefix: str = "", *, timeout: timedelta | None = None
    ) -> AsyncIterator[ObjectInfo]:
        """Return all of a bucket's objects, by key; the timeout is that of one page."""
        cursor = ""
        while True:
            page = await self.page(bucket, prefix, limit=1000, cursor=cursor, timeout=timeout)
            for each in page.objects:
                yield each
            cursor = page.next_cursor
            if not cursor:
                return

    async def copy(
        self,
        bucket: str,
        key: str,
        target_key: str,
        *,
        target_bucket: str = "",
        if_match: str = "",
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        timeout: timedelta | None = None,
    ) -> ObjectInfo:
        """Copy an object, to another bucket too; a content type or metadata, where given, replace both."""
        request = pb.CopyRequest(
            bucket=bucket,
            key=key,
            target_bucket=target_bucket,
            target_key=target_key,
            if_match=if_match,
        )
        if content_type is not None or metadata is not None:
            request.properties.CopyFrom(pb.Properties(content_type=content_type or "", metadata=dict(metadata or {})))
        return _info((await self._together("Copy", request, timeout)).info)

    async def delete(self, bucket: str, key: str, *, timeout: timedelta | None = None) -> None:
        """Delete an object; one that does not exist is deleted already."""
        await self._together("Delete", pb.DeleteRequest(bucket=bucket, key=key), timeout)

    async def delete_many(
        self, bucket: str, keys: Sequence[str], *, timeout: timedelta | None = None
    ) -> Sequence[IsaError | None]:
        """Delete several objects, at most 1000; what stands in the place of a key is why it was not deleted."""
        answers = await self._many("Delete", [pb.DeleteRequest(bucket=bucket, key=key) for key in keys], timeout)
        return [each if isinstance(each, IsaError) else None for each in answers]

    async def create_multipart_upload(
        self,
        bucket: str,
        key: str,
        *,
        content_type: str = "",
        metadata: Mapping[str, str] = {},
        timeout: timedelta | None = None,
    ) -> str:
        """Begin an upload in parts and return its id; abort it when it is not to be completed."""
        properties = pb.Properties(content_type=content_type, metadata=dict(metadata))
        request = pb.CreateMultipartUploadRequest(bucket=bucket, key=key, properties=properties)
        upload_id: str = (await self._call("CreateMultipartUpload", request, timeout)).upload_id
        return upload_id

    async def upload_part(
        self,
        bucket: str,
        key: str,
        upload_id: str,
        number: int,
        data: bytes,
        *,
        timeout: timedelta | None = None,
    ) -> Part:
        """Store part 1 to 10000, of 5 to 16 MiB; the last may be smaller. A number that was used is replaced."""
        header = pb.UploadPartHeader(bucket=bucket, key=key, upload_id=upload_id, number=number, size=len(data))
        response = await self._sent("UploadPart", pb.UploadPartRequest, header, data, timeout, tries=_TRIES)
        return _part(response.part)

    async def list_parts(
        self, bucket: str, key: str, upload_id: str, *, timeout: timedelta | None = None
    ) -> AsyncIterator[Part]:
        """Return the parts that are stored, by number; the timeout is that of one page."""
        cursor = ""
        while True:
            request = pb.ListPartsRequest(bucket=bucket, key=key, upload_id=upload_id, cursor=cursor)
            response = await self._call("ListParts", request, timeout)
            for part in response.parts:
                yield _part(part)
            cursor = response.next_cursor
            if not cursor:
                return

    async def complete_multipart_upload(
        self,
        bucket: str,
        key: str,
        upload_id: str,
        parts: Sequence[Part],
        *,
        if_absent: bool = False,
        if_match: str = "",
        timeout: timedelta | None = None,
    ) -> ObjectInfo:
        """Make the parts an object."""
        request = pb.CompleteMultipartUploadRequest(
            bucket=bucket,
            key=key,
            upload_id=upload_id,
            parts=[pb.Part(number=part.number, size=part.size, etag=part.etag) for part in parts],
            condition=_condition(if_absent=if_absent, if_match=if_match),
        )
        return _info((await self._call("CompleteMultipartUpload", request, timeout)).info)

    async def abort_multipart_upload(
        self, bucket: str, key: str, upload_id: str, *, timeout: timedelta | None = None
    ) -> None:
        """Give an upload up."""
        request = pb.AbortMultipartUploadRequest(bucket=bucket, key=key, upload_id=upload_id)
        await self._call("AbortMultipartUpload", request, timeout)

    async def presign_get(
        self,
        bucket: str,
        key: str,
        *,
        expires_in: timedelta | None = None,
        download_as: str = "",
        content_type: str = "",
        timeout: timedelta | None = None,
    ) -> SignedUrl:
        """Sign a URL that reads an object, for 15 minutes; at most 7 days."""
        request = pb.PresignGetRequest(
            bucket=bucket,
            key=key,
            expires_in=to_duration(expires_in),
            download_as=download_as,
            content_type=content_type,
        )
        response = await self._together("PresignGet", request, timeout)
        return SignedUrl(response.url, response.expires_at.ToDatetime(UTC))

    async def presign_put(
        self,
        bucket: str,
        key: str,
        *,
        expires_in: timedelta | None = None,
        size: int | None = None,
        content_type: str = "",
        sha256: bytes = b"",
        timeout: timedelta | None = None,
    ) -> SignedUrl:
        """Sign a URL that stores an object with HTTP's PUT; what is given of it here must be true then."""
        request = pb.PresignPutRequest(
            bucket=bucket,
            key=key,
            expires_in=to_duration(expires_in),
            size=size,
            content_type=content_type,
            sha256=sha256,
        )
        response = await self._together("PresignPut", request, timeout)
        return SignedUrl(response.url, response.expires_at.ToDatetime(UTC), dict(response.headers))

    async def presign_post(
        self,
        bucket: str,
        key: str = "",
        *,
        max_size: int,
        prefix: str | None = None,
        min_size: int = 0,
        expires_in: timedelta | None = None,
        content_type: str = "",
        timeout: timedelta | None = None,
    ) -> SignedForm:
        """Sign a form that stores an object as `key`, or any that begins with `prefix`. `image/*` is a type too."""
        request = pb.PresignPostRequest(
            bucket=bucket,
            expires_in=to_duration(expires_in),
            min_size=min_size,
            max_size=max_size,
            content_type=content_type,
        )
        if prefix is None:
            request.key = key
        else:
            request.prefix = prefix
        response = await self._together("PresignPost", request, timeout)
        return SignedForm(response.url, response.expires_at.ToDatetime(UTC), dict(response.fields))

    async def _together(self, name: str, request: Message, timeout: timedelta | None) -> Any:
        """Call by itself, or in one batch with the calls of the same moment."""
        coalescer = self._coalescers.get(name)
        if coalescer is None:
            coalescer = self._coalescers[name] = Coalescer(partial(self._call, name), partial(self._many, name))
        return await coalescer(request, timeout)

    async def _many(self, name: str, requests: Sequence[Message], timeout: timedelta | None) -> Sequence[Any]:
        """Call in one batch: an answer or an error for each request."""
        batch = _BATCHES[name](requests=requests)
        return outcomes_of(await self._call(f"{name}Many", batch, timeout))

    async def _sent(
        self,
        name: str,
        request: Callable[..., Message],
        header: Message,
        data: Data,
        timeout: timedelta | None,
        *,
        tries: int,
    ) -> Any:
        """Send a header, bytes and a finish; again after an outage, where that is said to be safe."""
        timeout = _TRANSFER if timeout is None else timeout
        while True:
            tries -= 1
            try:
                requests = _requests(request, header, data)
                method = self._methods[name]
                return await self._transport.collect(method, requests, timeout=timeout, acting=self._acting)
            except Unavailable as error:
                if not tries:
                    raise
                await _pause(error, _TRIES - tries)

    async def _received(
        self, request: pb.DownloadRequest, timeout: timedelta | None
    ) -> AsyncGenerator[ObjectInfo | bytes, None]:
        """What an object is, once, and its bytes; asks for the rest of them when the stream breaks off."""
        timeout = _TRANSFER if timeout is None else timeout
        header: pb.DownloadHeader | None = None
        received = failures = 0
        while True:
            crc32 = came = 0
            try:
                stream = self._stream("Download", request, timeout)
                async with contextlib.aclosing(stream) as parts:  # type: ignore[type-var]  # it is a generator
                    async for part in parts:
                        kind = part.WhichOneof("part")
                        if kind == "data":
                            data = part.data
                            crc32 = zlib.crc32(data, crc32)
                            came += len(data)
                            received += len(data)
                            failures = 0
                            yield data
                        elif kind == "header":
                            if header is None:
                                header = part.header
                                yield _info(header.info)
                        elif part.finish.size != came or part.finish.crc32 != crc32:
                            raise IsaError("The bytes that came are not those that were sent.")
                        else:
                            return
                raise Unavailable("The download broke off.")
            except Unavailable as error:
                failures += 1
                if header is None or failures >= _TRIES:
                    raise
                await _pause(error, failures)
                request = pb.DownloadRequest(
                    bucket=request.bucket,
                    key=request.key,
                    start=header.start + received,
                    end=header.end,
                    if_match=header.info.etag,
                )


_BATCHES: dict[str, Callable[..., Message]] = {
    "Stat": pb.StatManyRequest,
    "Copy": pb.CopyManyRequest,
    "Delete": pb.DeleteManyRequest,
    "PresignGet": pb.PresignGetManyRequest,
    "PresignPut": pb.PresignPutManyRequest,
    "PresignPost": pb.PresignPostManyRequest,
}


async def _pause(error: IsaError, attempt: int) -> None:
    wanted = timedelta(seconds=0.1 * 2**attempt)
    await asyncio.sleep(max(wanted, error.retry_after or wanted).total_seconds())


async def _requests(request: Callable[..., Message], header: Message, data: Data) -> AsyncIterator[Message]:
    """The messages of an upload."""
    size = crc32 = 0
    yield request(header=header)
    async for chunk in _chunks(data):
        size += len(chunk)
        crc32 = zlib.crc32(chunk, crc32)
        yield request(data=chunk)
    yield request(finish=pb.Finish(size=size, crc32=crc32))


async def _chunks(data: Data) -> AsyncIterator[bytes]:
    """Bytes in pieces that fit a message, and are worth one."""
    if isinstance(data, bytes):
        for start in range(0, len(data), CHUNK):
            yield data[start : start + CHUNK]
    elif isinstance(data, Path):
        with await asyncio.to_thread(data.open, "rb") as file:
            while chunk := await asyncio.to_thread(file.read, CHUNK):
                yield chunk
    else:
        held = bytearray()
        async for piece in data:
            held += piece
            while len(held) >= CHUNK:
                yield bytes(held[:CHUNK])
                del held[:CHUNK]
            if len(held) >= GATHERED:
                yield bytes(held)
                held.clear()
        if held:
            yield bytes(held)


def _condition(*, if_absent: bool, if_match: str) -> pb.Condition | None:
    if if_absent and if_match:
        raise InvalidArgument("An object that is absent has no etag: give if_absent or if_match.", field="if_match")
    if if_absent:
        return pb.Condition(absent=True)
    return pb.Condition(etag=if_match) if if_match else None


def _bucket(bucket: pb.Bucket) -> Bucket:
    return Bucket(bucket.name, bucket.created_at.ToDatetime(UTC))


def _part(part: pb.Part) -> Part:
    return Part(part.number, part.size, part.etag)


def _info(info: pb.ObjectInfo) -> ObjectInfo:
    return ObjectInfo(
        key=info.key,
        size=info.size,
        etag=info.etag,
        modified_at=info.modified_at.ToDatetime(UTC),
        content_type=info.content_type,
        metadata=dict(info.metadata),
        sha256=info.sha256,
    )
