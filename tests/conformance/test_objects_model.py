"""The adapter on MinIO does what the service in memory does, whatever two tenants do to it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

from botocore.exceptions import ClientError
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from isa.objects.v1 import objects_pb2 as pb
from isa_common import IsaError
from isa_common.testing._objects import MemoryObjects
from kernel import Caller
from kernel.errors import ours
from services.adapters.minio.app import Settings, create_app
from services.adapters.minio.repository import ERRORS
from tests.conformance.conftest import Engines, FakeParts, Secrets
from tests.conformance.machines import run_beside

tenants = st.sampled_from([0, 1])
buckets = st.sampled_from(["one", "one", "one", "two", "Wrong"])
keys = st.sampled_from(["a", "a/b", "a/b/c", "a b", "b", "é", "b/../a", ""])
bodies = st.sampled_from([b"", b"x", b"hello world"])
about = st.sampled_from(
    [
        pb.Properties(),
        pb.Properties(content_type="text/plain", metadata={"who": "Zoë"}),
        pb.Properties(content_type="x"),
    ]
)
conditions = st.sampled_from(["", "absent", "same", "other"])
offsets = st.sampled_from([-3, 0, 1, 5, 20])
ends = st.sampled_from([None, 0, 1, 5, 30])


DIFFERENT = {"etag", "modifiedAt", "createdAt", "crc32"}


class Side:
    """One of the two: the adapter, or the service in memory."""

    def __init__(self, service: Any) -> None:
        self.service = service
        self.uploads: list[str] = []
        self.parts: dict[str, pb.Part] = {}

    async def etag(self, caller: Caller, bucket: str, key: str) -> str:
        """The etag of an object, which the two sides need not compute in one way."""
        try:
            return (await self.service.stat(caller, pb.StatRequest(bucket=bucket, key=key))).info.etag
        except (IsaError, ClientError):
            return "0" * 32


Step = Callable[[Side, Caller], Any]


class Machine(RuleBasedStateMachine):
    """Does the same to both, and compares what they say."""

    loop: asyncio.AbstractEventLoop
    engine: Any

    def __init__(self) -> None:
        super().__init__()
        self.callers = [Caller(org=f"org-{uuid.uuid4().hex[:12]}", user="user-a") for _ in range(2)]
        self.sides = [Side(self.engine), Side(MemoryObjects())]

    def both(self, tenant: int, step: Step) -> None:
        caller = self.callers[tenant]
        engine, memory = (self.loop.run_until_complete(outcome(step(side, caller))) for side in self.sides)
        assert engine == memory

    @initialize()
    def begin_with_a_bucket(self) -> None:
        """Most of what is asked should be about something that there is."""
        for tenant in (0, 1):
            self.create_bucket(tenant, "one")

    @rule(tenant=tenants, bucket=buckets)
    def create_bucket(self, tenant: int, bucket: str) -> None:
        self.both(
            tenant, lambda side, caller: side.service.create_bucket(caller, pb.CreateBucketRequest(bucket=bucket))
        )

    @rule(tenant=tenants, bucket=buckets)
    def delete_bucket(self, tenant: int, bucket: str) -> None:
        self.both(
            tenant, lambda side, caller: side.service.delete_bucket(caller, pb.DeleteBucketRequest(bucket=bucket))
        )

    @rule(tenant=tenants)
    def list_buckets(self, tenant: int) -> None:
        self.both(tenant, lambda side, caller: side.service.list_buckets(caller, pb.ListBucketsRequest()))

    @rule(tenant=tenants, bucket=buckets, key=keys, body=bodies, about=about, condition=conditions)
    def put(self, tenant: int, bucket: str, key: str, body: bytes, about: pb.Properties, condition: str) -> None:
        async def step(side: Side, caller: Caller) -> Any:
            header = pb.UploadHeader(bucket=bucket, key=key, properties=about)
            if condition == "absent":
                header.condition.absent = True
            elif condition:
                header.condition.etag = await side.etag(caller, bucket, key) if condition == "same" else "f" * 32
            messages = [
                pb.UploadRequest(header=header),
                pb.UploadRequest(data=body),
                pb.UploadRequest(finish=pb.Finish(size=len(body))),
            ]
            return await side.service.upload(caller, each(messages))

        self.both(tenant, step)

    @rule(tenant=tenants, bucket=buckets, key=keys, start=offsets, end=ends)
    def get(self, tenant: int, bucket: str, key: str, start: int, end: int | None) -> None:
        async def step(side: Side, caller: Caller) -> Any:
            request = pb.DownloadRequest(bucket=bucket, key=key, start=start, end=end)
            parts = [part async for part in side.service.download(caller, request)]
            return parts[0].header, b"".join(part.data for part in parts), parts[-1].finish

        self.both(tenant, step)

    @rule(tenant=tenants, bucket=buckets, chosen=st.lists(keys, max_size=4))
    def stat_many(self, tenant: int, bucket: str, chosen: list[str]) -> None:
        request = pb.StatManyRequest(requests=[pb.StatRequest(bucket=bucket, key=key) for key in chosen])
        self.both(tenant, lambda side, caller: side.service.stat_many(caller, request))

    @rule(
        tenant=tenants,
        bucket=buckets,
        prefix=st.sampled_from(["", "a", "a/", "é", "/"]),
        delimiter=st.sampled_from(["", "/"]),
    )
    def list_pages(self, tenant: int, bucket: str, prefix: str, delimiter: str) -> None:
        async def step(side: Side, caller: Caller) -> Any:
            found, cursor = [], ""
            while True:
                request = pb.ListRequest(bucket=bucket, prefix=prefix, delimiter=delimiter, limit=2, cursor=cursor)
                page = await side.service.list(caller, request)
                cursor = page.next_cursor
                page.next_cursor = ""
                found.append(page)
                if not cursor:
                    return found

        self.both(tenant, step)

    @rule(tenant=tenants, bucket=buckets, key=keys, to=buckets, target_key=keys, about=st.none() | about)
    def copy(self, tenant: int, bucket: str, key: str, to: str, target_key: str, about: pb.Properties | None) -> None:
        request = pb.CopyRequest(bucket=bucket, key=key, target_bucket=to, target_key=target_key, properties=about)
        self.both(tenant, lambda side, caller: side.service.copy(caller, request))

    @rule(tenant=tenants, bucket=buckets, chosen=st.lists(keys, max_size=4))
    def delete_many(self, tenant: int, bucket: str, chosen: list[str]) -> None:
        request = pb.DeleteManyRequest(requests=[pb.DeleteRequest(bucket=bucket, key=key) for key in chosen])
        self.both(tenant, lambda side, caller: side.service.delete_many(caller, request))

    @rule(tenant=tenants, bucket=buckets, key=keys, about=about)
    def begin(self, tenant: int, bucket: str, key: str, about: pb.Properties) -> None:
        async def step(side: Side, caller: Caller) -> Any:
            request = pb.CreateMultipartUploadRequest(bucket=bucket, key=key, properties=about)
            side.uploads.append((await side.service.create_multipart_upload(caller, request)).upload_id)

        self.both(tenant, step)

    @rule(tenant=tenants, bucket=buckets, key=keys, body=bodies)
    def part(self, tenant: int, bucket: str, key: str, body: bytes) -> None:
        async def step(side: Side, caller: Caller) -> Any:
            upload_id = side.uploads[-1] if side.uploads else "absent"
            header = pb.UploadPartHeader(bucket=bucket, key=key, upload_id=upload_id, number=1, size=len(body))
            messages = [
                pb.UploadPartRequest(header=header),
                pb.UploadPartRequest(data=body),
                pb.UploadPartRequest(finish=pb.Finish(size=len(body))),
            ]
            response = await side.service.upload_part(caller, each(messages))
            side.parts[upload_id] = response.part
            return response

        self.both(tenant, step)

    @rule(tenant=tenants, bucket=buckets, key=keys)
    def list_parts(self, tenant: int, bucket: str, key: str) -> None:
        def step(side: Side, caller: Caller) -> Any:
            upload_id = side.uploads[-1] if side.uploads else "absent"
            return side.service.list_parts(caller, pb.ListPartsRequest(bucket=bucket, key=key, upload_id=upload_id))

        self.both(tenant, step)

    @rule(tenant=tenants, bucket=buckets, key=keys)
    def complete(self, tenant: int, bucket: str, key: str) -> None:
        def step(side: Side, caller: Caller) -> Any:
            upload_id = side.uploads[-1] if side.uploads else "absent"
            parts = [side.parts.get(upload_id, pb.Part(number=1, etag="f" * 32))]
            request = pb.CompleteMultipartUploadRequest(bucket=bucket, key=key, upload_id=upload_id, parts=parts)
            return side.service.complete_multipart_upload(caller, request)

        self.both(tenant, step)

    @rule(tenant=tenants, bucket=buckets, key=keys)
    def abort(self, tenant: int, bucket: str, key: str) -> None:
        def step(side: Side, caller: Caller) -> Any:
            upload_id = side.uploads[-1] if side.uploads else "absent"
            request = pb.AbortMultipartUploadRequest(bucket=bucket, key=key, upload_id=upload_id)
            return side.service.abort_multipart_upload(caller, request)

        self.both(tenant, step)

    def teardown(self) -> None:
        self.loop.run_until_complete(self.clear())

    async def clear(self) -> None:
        """Leave the engine as it was found."""
        for caller in self.callers:
            for bucket in (await self.engine.list_buckets(caller, pb.ListBucketsRequest())).buckets:
                page = await self.engine.list(caller, pb.ListRequest(bucket=bucket.name))
                requests = [pb.DeleteRequest(bucket=bucket.name, key=found.key) for found in page.objects]
                if requests:
                    await self.engine.delete_many(caller, pb.DeleteManyRequest(requests=requests))
                await self.engine.delete_bucket(caller, pb.DeleteBucketRequest(bucket=bucket.name))


async def each(messages: list[Any]) -> AsyncIterator[Any]:
    for message in messages:
        yield message


async def outcome(answer: Any) -> Any:
    """What an answer says, without what may differ: times, etags, checksums, and the words of errors."""
    try:
        return told(await answer)
    except Exception as failure:
        error = ours(failure, ERRORS)
        return error.code, error.field


def told(answer: Any) -> Any:
    if isinstance(answer, Message):
        return told(MessageToDict(answer))
    if isinstance(answer, list | tuple):
        return [told(part) for part in answer]
    if isinstance(answer, dict):
        left = {name: value for name, value in answer.items() if name not in DIFFERENT}
        return {name: value["code"] if name == "error" else told(value) for name, value in left.items()}
    return answer


def test_the_adapter_does_what_the_model_does(engines: Engines) -> None:
    adapter = create_app(
        Settings(url=f"http://{engines.address('minio')}"), FakeParts(Secrets(engines.secrets))
    ).implementation
    run_beside(Machine, adapter)
