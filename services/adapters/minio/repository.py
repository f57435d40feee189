"""Objects of a caller's organisation, in an S3 store."""

from __future__ import annotations

import asyncio
import base64
import zlib
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import quote

import aiohttp
from botocore.exceptions import ClientError

from isa.objects.v1 import objects_pb2 as pb
from isa_common import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    IsaError,
    NotFound,
    PreconditionFailed,
    Unavailable,
)
from kernel import Caller, Shares, status
from services.adapters.minio.buckets import Buckets
from services.adapters.minio.budget import Budget, Gathering
from services.adapters.minio.codec import (
    LONGEST_KEY,
    Cursor,
    ancestors,
    can_begin_keys,
    checked_key,
    checked_sha256,
    checked_type,
    expiry,
    is_text,
    is_upload_id,
    object_info,
    properties,
    quoted,
    tenant_of,
)
from services.adapters.minio.incoming import Incoming
from services.adapters.minio.store import AGAIN, ERRORS, UNREACHED, Store, code_of, meaning

__all__ = ["ERRORS", "Objects"]

MIB = 1 << 20
PART = 8 * MIB
"""Bytes of a part of a streamed upload; what is smaller goes in one piece."""
IN_FLIGHT = 2
"""Parts of one upload on their way to the store while the next is gathered."""
LARGEST = 64 << 30
"""Bytes of an object that comes in one stream: S3 counts 10,000 parts."""
LARGEST_PART = 16 * MIB
PARTS = 10_000
PIECE = 512 * 1024
"""Bytes of a message of a download, at least."""
PAGE = 100
LONGEST_PAGE = 1000
MANY = 256
MANY_KEYS = 1000
AT_ONCE = 16
"""Requests of one batch at the store at a time."""

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Objects:
    """The `isa.objects.v1.Objects` service on an S3 store."""

    def __init__(
        self, store: Store, buckets: Buckets, shares: Shares, *, budget: Budget, idle: timedelta, slowest: timedelta
    ) -> None:
        self._store = store
        self._shares = shares
        self._budget = budget
        self._idle = idle
        self._slowest = slowest
        self._buckets = buckets
        self._abandoned: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Prepare the store's client."""
        await self._store.start()

    async def stop(self) -> None:
        """Finish what was given up, and close the connections."""
        if self._abandoned:
            await asyncio.wait(self._abandoned, timeout=5)
        await self._store.stop()

    async def stored(self, org: str) -> int:
        """Bytes that an organisation holds."""
        return await self._buckets.stored(org)

    async def create_bucket(self, caller: Caller, request: pb.CreateBucketRequest) -> pb.CreateBucketResponse:
        """Make a bucket of the organisation."""
        await self._buckets.make(caller, request.bucket)
        return pb.CreateBucketResponse(bucket=_bucket(request.bucket, datetime.now(UTC)))

    async def head_bucket(self, caller: Caller, request: pb.HeadBucketRequest) -> pb.HeadBucketResponse:
        """Find a bucket among the organisation's."""
        await self._buckets.find(caller, request.bucket)
        created = (await self._buckets.of(caller)).get(request.bucket)
        if created is None:
            raise NotFound("No such bucket.", bucket=request.bucket)
        return pb.HeadBucketResponse(bucket=_bucket(request.bucket, created))

    async def list_buckets(self, caller: Caller, request: pb.ListBucketsRequest) -> pb.ListBucketsResponse:
        """Return the organisation's buckets."""
        found = sorted((await self._buckets.of(caller)).items())
        return pb.ListBucketsResponse(buckets=[_bucket(name, created) for name, created in found])

    async def delete_bucket(self, caller: Caller, request: pb.DeleteBucketRequest) -> pb.DeleteBucketResponse:
        """Delete an empty bucket."""
        await self._buckets.delete(caller, request.bucket)
        return pb.DeleteBucketResponse()

    async def upload(self, caller: Caller, requests: AsyncIterator[pb.UploadRequest]) -> pb.UploadResponse:
        """Store an object: in one piece, or in parts that nobody sees before they are complete."""
        incoming = Incoming(requests, most=LARGEST, idle=self._idle, slowest=self._slowest)
        header = await incoming.header()
        assert isinstance(header, pb.UploadHeader), "the type of the requests says so"
        key = checked_key(header.key)
        bucket = await self._buckets.find(caller, header.bucket, key)
        size = header.size if header.HasField("size") else None
        sha256 = checked_sha256(header.sha256) if header.sha256 else b""
        incoming.expect(size=size, sha256=sha256)
        about = properties(header.properties, sha256=sha256)
        condition = _condition(header.condition)
        await self._shares.room(caller, size or 0)
        await self._make_way(bucket, key)
        gathering = Gathering(self._budget, tenant_of(caller))
        try:
            await gathering.take(PART if size is None else min(size, PART))
            data = await incoming.part(PART)
            if size is None:
                await self._shares.room(caller, len(data))
            if incoming.is_whole:
                with _conditional(header.condition):
                    answer = await self._s3.put_object(Bucket=bucket, Key=key, Body=data, **about, **condition)
            else:
                grows = caller if size is None else None
                answer = await self._in_parts(bucket, key, about, header.condition, data, incoming, gathering, grows)
        finally:
            gathering.give()
        self._buckets.grew(caller, incoming.size)
        facts = {**about, **answer, "Size": incoming.size, "LastModified": _date(answer)}
        return pb.UploadResponse(info=object_info(key, facts))

    async def download(self, caller: Caller, request: pb.DownloadRequest) -> AsyncIterator[pb.DownloadResponse]:
        """Send an object, or a range of it, as the store sends it."""
        key = checked_key(request.key)
        bucket = await self._buckets.find(caller, request.bucket, key)
        wanted = _range(request)
        conditions: dict[str, str] = {}
        if request.if_match:
            conditions["IfMatch"] = quoted(request.if_match)
        if request.if_none_match:
            conditions["IfNoneMatch"] = quoted(request.if_none_match)
        which = {"Bucket": bucket, "Key": key, **conditions}
        try:
            if wanted is None:
                answer = await self._s3.head_object(**which)
            else:
                answer = await self._s3.get_object(**which, **wanted)
        except ClientError as error:
            if code_of(error) != "InvalidRange":
                raise
            answer = await self._s3.head_object(**which)
            if request.start > 0 or answer["ContentLength"]:
                raise InvalidArgument("The range begins behind the end of the object.", field="start") from None
            wanted = None
        start, end, size = _sent(answer, is_empty=wanted is None)
        info = object_info(key, {**answer, "Size": size})
        yield pb.DownloadResponse(header=pb.DownloadHeader(info=info, start=start, end=end))
        crc32 = sent = 0
        if wanted is not None:
            async with answer["Body"] as body:
                async for data in _pieces(body.raw_stream.content):
                    crc32 = zlib.crc32(data, crc32)
                    sent += len(data)
                    yield pb.DownloadResponse(data=data)
        if sent != end - start:
            raise Unavailable("The object store broke off.", retry_after=AGAIN)
        yield pb.DownloadResponse(finish=pb.Finish(size=sent, crc32=crc32))

    async def stat(self, caller: Caller, request: pb.StatRequest) -> pb.StatResponse:
        """Ask for an object without its bytes."""
        key = checked_key(request.key)
        bucket = await self._buckets.find(caller, request.bucket, key)
        return pb.StatResponse(info=object_info(key, await self._s3.head_object(Bucket=bucket, Key=key)))

    async def stat_many(self, caller: Caller, request: pb.StatManyRequest) -> pb.StatManyResponse:
        """Ask for several."""
        outcomes = await self._each(caller, request.requests, self.stat, pb.StatOutcome)
        return pb.StatManyResponse(outcomes=outcomes)

    async def list(self, caller: Caller, request: pb.ListRequest) -> pb.ListResponse:
        """Return a page of a bucket."""
        if not is_text(request.prefix, LONGEST_KEY):
            raise InvalidArgument(f"A prefix has at most {LONGEST_KEY} bytes, no control characters.", field="prefix")
        bucket = await self._buckets.find(caller, request.bucket, request.prefix)
        if request.delimiter not in ("", "/"):
            raise InvalidArgument("The delimiter is / or empty.", field="delimiter")
        limit = request.limit or PAGE
        if not 0 < limit <= LONGEST_PAGE:
            raise InvalidArgument(f"A page may have 1 to {LONGEST_PAGE} objects.", field="limit")
        cursor = Cursor(bucket, request.prefix, request.delimiter)
        question: dict[str, Any] = {"Bucket": bucket, "Prefix": request.prefix, "MaxKeys": limit}
        if request.delimiter:
            question["Delimiter"] = request.delimiter
        if request.cursor:
            question["ContinuationToken"] = cursor.read(request.cursor)
        if not can_begin_keys(request.prefix):
            return pb.ListResponse()
        answer = await self._s3.list_objects_v2(**question)
        token = answer.get("NextContinuationToken", "")
        return pb.ListResponse(
            objects=[object_info(each["Key"], each) for each in answer.get("Contents", ())],
            prefixes=[each["Prefix"] for each in answer.get("CommonPrefixes", ())],
            next_cursor=cursor.write(token) if token else "",
        )

    async def copy(self, caller: Caller, request: pb.CopyRequest) -> pb.CopyResponse:
        """Let the store copy an object."""
        source_key = checked_key(request.key)
        key = checked_key(request.target_key, field="target_key")
        source = await self._buckets.find(caller, request.bucket, source_key)
        named = request.target_bucket or request.bucket
        bucket = await self._buckets.find(caller, named, key, field="target_bucket")
        is_new = request.HasField("properties")
        if (source, source_key) == (bucket, key) and not is_new:
            raise InvalidArgument("An object is copied to another key, or gets other properties.", field="target_key")
        expected = {"CopySourceIfMatch": quoted(request.if_match)} if request.if_match else {}
        found = await self._s3.head_object(Bucket=source, Key=source_key)
        about: dict[str, Any] = {"ContentType": found.get("ContentType", ""), "Metadata": found.get("Metadata", {})}
        if is_new:
            sha256 = object_info(source_key, found).sha256
            about = properties(request.properties, sha256=sha256)
        await self._shares.room(caller, found["ContentLength"])
        await self._make_way(bucket, key)
        answer = await self._s3.copy_object(
            Bucket=bucket,
            Key=key,
            CopySource={"Bucket": source, "Key": source_key},
            MetadataDirective="REPLACE" if is_new else "COPY",
            **(about if is_new else {}),
            **expected,
        )
        self._buckets.grew(caller, found["ContentLength"])
        facts = {**about, "Size": found["ContentLength"], **answer["CopyObjectResult"]}
        return pb.CopyResponse(info=object_info(key, facts))

    async def copy_many(self, caller: Caller, request: pb.CopyManyRequest) -> pb.CopyManyResponse:
        """Copy several, in no order."""
        outcomes = await self._each(caller, request.requests, self.copy, pb.CopyOutcome)
        return pb.CopyManyResponse(outcomes=outcomes)

    async def delete(self, caller: Caller, request: pb.DeleteRequest) -> pb.DeleteResponse:
        """Delete an object."""
        key = checked_key(request.key)
        bucket = await self._buckets.find(caller, request.bucket, key)
        await self._s3.delete_object(Bucket=bucket, Key=key)
        return pb.DeleteResponse()

    async def delete_many(self, caller: Caller, request: pb.DeleteManyRequest) -> pb.DeleteManyResponse:
        """Delete several, with one call a bucket."""
        self._spend(caller, request.requests, MANY_KEYS)
        outcomes = [pb.DeleteOutcome(ok=pb.DeleteResponse()) for _ in request.requests]
        keys: defaultdict[str, defaultdict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
        for index, each in enumerate(request.requests):
            try:
                key = checked_key(each.key)
                keys[await self._buckets.find(caller, each.bucket, key)][key].append(index)
            except IsaError as error:
                outcomes[index] = pb.DeleteOutcome(error=status(error))
        for bucket, places in keys.items():
            objects = [{"Key": key} for key in places]
            try:
                answer = await self._s3.delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True})
                failed = {
                    each["Key"]: ClientError({"Error": each}, "DeleteObjects") for each in answer.get("Errors", ())
                }
            except ClientError as error:
                failed = dict.fromkeys(places, error)
            for key, failure in failed.items():
                for index in places.get(key, ()):
                    outcomes[index] = pb.DeleteOutcome(error=status(meaning(failure)))
        return pb.DeleteManyResponse(outcomes=outcomes)

    async def create_multipart_upload(
        self, caller: Caller, request: pb.CreateMultipartUploadRequest
    ) -> pb.CreateMultipartUploadResponse:
        """Begin an upload in parts."""
        key = checked_key(request.key)
        bucket = await self._buckets.find(caller, request.bucket, key)
        about = properties(request.properties)
        await self._shares.room(caller, 0)
        await self._make_way(bucket, key)
        answer = await self._s3.create_multipart_upload(Bucket=bucket, Key=key, **about)
        return pb.CreateMultipartUploadResponse(upload_id=answer["UploadId"])

    async def upload_part(self, caller: Caller, requests: AsyncIterator[pb.UploadPartRequest]) -> pb.UploadPartResponse:
        """Store a part."""
        incoming = Incoming(requests, most=LARGEST_PART, idle=self._idle, slowest=self._slowest)
        header = await incoming.header()
        assert isinstance(header, pb.UploadPartHeader), "the type of the requests says so"
        which = await self._upload(caller, header)
        if not 0 < header.number <= PARTS:
            raise InvalidArgument(f"A part's number is 1 to {PARTS}.", field="number")
        incoming.expect(size=header.size)
        await self._shares.room(caller, header.size)
        async with self._budget.held(tenant_of(caller), header.size):
            data = await incoming.part(LARGEST_PART + 1)
            answer = await self._s3.upload_part(**which, PartNumber=header.number, Body=data)
        self._buckets.grew(caller, len(data))
        part = pb.Part(number=header.number, size=len(data), etag=answer["ETag"].strip('"'))
        return pb.UploadPartResponse(part=part)

    async def list_parts(self, caller: Caller, request: pb.ListPartsRequest) -> pb.ListPartsResponse:
        """Return a page of the parts that came."""
        which = await self._upload(caller, request)
        limit = request.limit or LONGEST_PAGE
        if not 0 < limit <= LONGEST_PAGE:
            raise InvalidArgument(f"A page may have 1 to {LONGEST_PAGE} parts.", field="limit")
        cursor = Cursor(*which.values())
        marker = cursor.read(request.cursor) if request.cursor else "0"
        answer = await self._s3.list_parts(**which, MaxParts=limit, PartNumberMarker=int(marker))
        parts = [
            pb.Part(number=each["PartNumber"], size=each["Size"], etag=each["ETag"].strip('"'))
            for each in answer.get("Parts", ())
        ]
        more = cursor.write(str(parts[-1].number)) if answer.get("IsTruncated") and parts else ""
        return pb.ListPartsResponse(parts=parts, next_cursor=more)

    async def complete_multipart_upload(
        self, caller: Caller, request: pb.CompleteMultipartUploadRequest
    ) -> pb.CompleteMultipartUploadResponse:
        """Make the parts an object."""
        which = await self._upload(caller, request)
        if not 0 < len(request.parts) <= PARTS:
            raise InvalidArgument(f"An object has 1 to {PARTS} parts.", field="parts")
        numbers = [part.number for part in request.parts]
        if sorted(set(numbers)) != numbers:
            raise InvalidArgument("Parts come in the order of their numbers, each once.", field="parts")
        parts = [{"PartNumber": part.number, "ETag": quoted(part.etag)} for part in request.parts]
        await self._make_way(which["Bucket"], which["Key"])
        with _conditional(request.condition):
            await self._s3.complete_multipart_upload(
                **which, MultipartUpload={"Parts": parts}, **_condition(request.condition)
            )
        found = await self._s3.head_object(Bucket=which["Bucket"], Key=which["Key"])
        return pb.CompleteMultipartUploadResponse(info=object_info(request.key, found))

    async def abort_multipart_upload(
        self, caller: Caller, request: pb.AbortMultipartUploadRequest
    ) -> pb.AbortMultipartUploadResponse:
        """Free the parts."""
        which = await self._upload(caller, request)
        try:
            await self._s3.abort_multipart_upload(**which)
        except ClientError as error:
            if code_of(error) != "NoSuchUpload":
                raise
        return pb.AbortMultipartUploadResponse()

    async def presign_get(self, caller: Caller, request: pb.PresignGetRequest) -> pb.PresignGetResponse:
        """Sign a URL for reading."""
        key = checked_key(request.key)
        expires_in = expiry(request)
        bucket = await self._buckets.find(caller, request.bucket, key)
        query = {}
        if request.download_as:
            if not is_text(request.download_as, 255) or "/" in request.download_as:
                raise InvalidArgument("A file's name has at most 255 bytes and no /.", field="download_as")
            query["response-content-disposition"] = (
                f"attachment; filename*=UTF-8''{quote(request.download_as, safe='')}"
            )
        if request.content_type:
            query["response-content-type"] = checked_type(request.content_type)
        url, ends = await self._store.signed_url("GET", bucket, key, expires_in=expires_in, query=query)
        response = pb.PresignGetResponse(url=url)
        response.expires_at.FromDatetime(ends)
        return response

    async def presign_get_many(self, caller: Caller, request: pb.PresignGetManyRequest) -> pb.PresignGetManyResponse:
        """Sign several."""
        outcomes = await self._each(caller, request.requests, self.presign_get, pb.PresignGetOutcome)
        return pb.PresignGetManyResponse(outcomes=outcomes)

    async def presign_put(self, caller: Caller, request: pb.PresignPutRequest) -> pb.PresignPutResponse:
        """Sign a URL for storing."""
        key = checked_key(request.key)
        expires_in = expiry(request)
        bucket = await self._buckets.find(caller, request.bucket, key)
        headers = {}
        if request.HasField("size"):
            if not 0 <= request.size <= LARGEST:
                raise InvalidArgument(f"An object has 0 to {LARGEST} bytes.", field="size")
            headers["Content-Length"] = str(request.size)
        if request.content_type:
            headers["Content-Type"] = checked_type(request.content_type)
        if request.sha256:
            headers["x-amz-checksum-sha256"] = base64.b64encode(checked_sha256(request.sha256)).decode()
        await self._shares.room(caller, request.size)
        await self._make_way(bucket, key)
        url, ends = await self._store.signed_url("PUT", bucket, key, expires_in=expires_in, headers=headers)
        response = pb.PresignPutResponse(url=url, headers=headers)
        response.expires_at.FromDatetime(ends)
        return response

    async def presign_put_many(self, caller: Caller, request: pb.PresignPutManyRequest) -> pb.PresignPutManyResponse:
        """Sign several."""
        outcomes = await self._each(caller, request.requests, self.presign_put, pb.PresignPutOutcome)
        return pb.PresignPutManyResponse(outcomes=outcomes)

    async def presign_post(self, caller: Caller, request: pb.PresignPostRequest) -> pb.PresignPostResponse:
        """Sign a form."""
        expires_in = expiry(request)
        if not 0 <= request.min_size <= request.max_size <= LARGEST or not request.max_size:
            raise InvalidArgument(f"Sizes go from 0 to {LARGEST}, the largest at least 1.", field="max_size")
        conditions: list[Any] = [["content-length-range", request.min_size, request.max_size]]
        fields = {}
        if request.WhichOneof("target") == "prefix":
            if not is_text(request.prefix, LONGEST_KEY) or not can_begin_keys(request.prefix):
                raise InvalidArgument("No key begins like this.", field="prefix")
            bucket = await self._buckets.find(caller, request.bucket, request.prefix)
            conditions.append(["starts-with", "$key", request.prefix])
        else:
            key = checked_key(request.key)
            bucket = await self._buckets.find(caller, request.bucket, key)
            await self._make_way(bucket, key)
            fields["key"] = key
            conditions.append({"key": key})
        if request.content_type.endswith("/*"):
            conditions.append(["starts-with", "$Content-Type", request.content_type[:-1]])
        elif request.content_type:
            fields["Content-Type"] = checked_type(request.content_type)
            conditions.append({"Content-Type": request.content_type})
        else:
            conditions.append(["starts-with", "$Content-Type", ""])
        await self._shares.room(caller, request.max_size)
        url, fields, ends = await self._store.signed_form(bucket, conditions, fields, expires_in=expires_in)
        response = pb.PresignPostResponse(url=url, fields=fields)
        response.expires_at.FromDatetime(ends)
        return response

    async def presign_post_many(self, caller: Caller, request: pb.PresignPostManyRequest) -> pb.PresignPostManyResponse:
        """Sign several."""
        outcomes = await self._each(caller, request.requests, self.presign_post, pb.PresignPostOutcome)
        return pb.PresignPostManyResponse(outcomes=outcomes)

    @property
    def _s3(self) -> Any:
        return self._store.s3

    async def _make_way(self, bucket: str, key: str) -> None:
        """Refuse a key that would lie below an object, or above one: MinIO takes it, and then lists one of the two."""
        found = await asyncio.gather(
            self._s3.list_objects_v2(Bucket=bucket, Prefix=f"{key}/", MaxKeys=1),
            *(self._exists(bucket, each) for each in ancestors(key)),
        )
        if found[0].get("Contents"):
            raise FailedPrecondition("There are objects below this key.", field="key")
        if any(found[1:]):
            raise FailedPrecondition("This key lies below an object.", field="key")

    async def _exists(self, bucket: str, key: str) -> bool:
        try:
            await self._s3.head_object(Bucket=bucket, Key=key)
        except ClientError as error:
            if code_of(error) != "404":
                raise
            return False
        return True

    async def _in_parts(
        self,
        bucket: str,
        key: str,
        about: dict[str, Any],
        condition: pb.Condition,
        data: bytes,
        incoming: Incoming,
        gathering: Gathering,
        grows: Caller | None,
    ) -> dict[str, Any]:
        """Send parts while more come in, and make them an object when everything is there and right."""
        which = {"Bucket": bucket, "Key": key}
        which["UploadId"] = (await self._s3.create_multipart_upload(**which, **about))["UploadId"]
        sending: set[asyncio.Task[dict[str, Any]]] = set()
        sent: list[dict[str, Any]] = []
        number = 0
        try:
            while data:
                number += 1
                task = asyncio.create_task(self._send(which, number, data))
                task.add_done_callback(gathering.passed_on())
                sending.add(task)
                if len(sending) >= IN_FLIGHT:
                    done, sending = await asyncio.wait(sending, return_when=asyncio.FIRST_COMPLETED)
                    sent += [task.result() for task in done]
                if incoming.is_whole:
                    break
                await gathering.take(PART)
                data = await incoming.part(PART)
                if grows is not None:
                    await self._shares.room(grows, len(data))
            sent += await asyncio.gather(*sending)
            parts = sorted(sent, key=lambda part: int(part["PartNumber"]))
            with _conditional(condition):
                answer: dict[str, Any] = await self._s3.complete_multipart_upload(
                    **which, MultipartUpload={"Parts": parts}, **_condition(condition)
                )
        except BaseException:
            for task in sending:
                task.cancel()
            giving_up = asyncio.create_task(self._give_up(which, sending))
            self._abandoned.add(giving_up)
            giving_up.add_done_callback(self._abandoned.discard)
            raise
        return answer

    async def _send(self, which: dict[str, str], number: int, data: bytes) -> dict[str, Any]:
        answer = await self._s3.upload_part(**which, PartNumber=number, Body=data)
        return {"PartNumber": number, "ETag": answer["ETag"]}

    async def _give_up(self, which: dict[str, str], sending: set[asyncio.Task[dict[str, Any]]]) -> None:
        """Free the parts of an upload that failed; what the store does not hear it forgets by itself, in a day."""
        if sending:
            await asyncio.wait(sending)
        with suppress(ClientError, *UNREACHED):
            await self._s3.abort_multipart_upload(**which)

    async def _upload(
        self,
        caller: Caller,
        given: pb.UploadPartHeader
        | pb.ListPartsRequest
        | pb.CompleteMultipartUploadRequest
        | pb.AbortMultipartUploadRequest,
    ) -> dict[str, str]:
        """Which upload a call is about, in the store's words."""
        key = checked_key(given.key)
        bucket = await self._buckets.find(caller, given.bucket, key)
        if not is_upload_id(given.upload_id):
            raise InvalidArgument("This is no id of an upload.", field="upload_id")
        return {"Bucket": bucket, "Key": key, "UploadId": given.upload_id}

    def _spend(self, caller: Caller, requests: Sequence[Any], most: int) -> None:
        if len(requests) > most:
            raise InvalidArgument(f"At most {most} at a time.", field="requests")
        self._shares.spend(caller, len(requests) - 1)

    async def _each(
        self,
        caller: Caller,
        requests: Sequence[Item],
        one: Callable[[Caller, Item], Awaitable[Any]],
        outcome: Callable[..., Answer],
    ) -> Sequence[Answer]:
        """The outcomes of a batch, each by the method for one."""
        self._spend(caller, requests, MANY)

        async def tried(request: Item) -> Answer:
            try:
                return outcome(ok=await one(caller, request))
            except IsaError as error:
                return outcome(error=status(error))
            except ClientError as error:
                return outcome(error=status(meaning(error)))

        return await _together(requests, tried)


async def _together(items: Sequence[Item], one: Callable[[Item], Awaitable[Answer]]) -> list[Answer]:
    """Do the same with each, some at a time."""
    places = asyncio.Semaphore(AT_ONCE)

    async def placed(item: Item) -> Answer:
        async with places:
            return await one(item)

    return await asyncio.gather(*map(placed, items))


def _bucket(name: str, created_at: datetime) -> pb.Bucket:
    bucket = pb.Bucket(name=name)
    bucket.created_at.FromDatetime(created_at.astimezone(UTC))
    return bucket


def _condition(given: pb.Condition) -> dict[str, str]:
    """What S3 is told to check."""
    if given.absent:
        return {"IfNoneMatch": "*"}
    return {"IfMatch": quoted(given.etag)} if given.etag else {}


@contextmanager
def _conditional(given: pb.Condition) -> Iterator[None]:
    """Say of a failed condition what the caller asked for."""
    try:
        yield
    except ClientError as error:
        code = code_of(error)
        if given.absent and code == "PreconditionFailed":
            raise AlreadyExists("There is an object with this key.") from error
        if given.etag and code == "NoSuchKey":
            raise PreconditionFailed("There is no object with this key.") from error
        raise


def _date(answer: dict[str, Any]) -> datetime:
    """When the store answered: the time of what it has just stored."""
    return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])


def _range(request: pb.DownloadRequest) -> dict[str, str] | None:
    """What S3 is told of a range; None when no byte is wanted."""
    start = request.start
    if not request.HasField("end"):
        return {"Range": f"bytes={start}-" if start > 0 else f"bytes={start}"} if start else {}
    if start < 0:
        raise InvalidArgument("A range that counts from the end goes to the end.", field="end")
    if request.end < start:
        raise InvalidArgument("A range ends behind its start.", field="end")
    return {"Range": f"bytes={start}-{request.end - 1}"} if request.end > start else None


def _sent(answer: dict[str, Any], *, is_empty: bool) -> tuple[int, int, int]:
    """Start, end and size of the whole object, from S3's answer."""
    length = answer["ContentLength"]
    if is_empty:
        return 0, 0, length
    if "ContentRange" not in answer:
        return 0, length, length
    place, _, size = answer["ContentRange"].removeprefix("bytes ").partition("/")
    start, _, last = place.partition("-")
    return int(start), int(last) + 1, int(size)


async def _pieces(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """The body in pieces of a sensible size."""
    held: list[bytes] = []
    size = 0
    try:
        async for data in content.iter_any():
            held.append(data)
            size += len(data)
            if size >= PIECE:
                yield b"".join(held)
                held, size = [], 0
    except TimeoutError as error:  # of the store, which stood still; the call's own deadline cancels it
        raise Unavailable("The object store broke off.", retry_after=AGAIN) from error
    if held:
        yield b"".join(held)
