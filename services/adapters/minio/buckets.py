"""Whose a bucket is, and how much an organisation's buckets hold."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from botocore.exceptions import ClientError

from isa_common import AlreadyExists, NotFound, ResourceExhausted
from kernel import Caller, concerns
from services.adapters.minio.codec import isolate, tenant_of
from services.adapters.minio.store import Store, code_of

TAG = "isa-tenant"
"""Tag of a bucket that names whose it is."""
OWNED = 60.0
"""Seconds for which a bucket is known to be its owner's."""
KNOWN = 10_000
COUNTING = 50
"""A count of stored bytes holds for so many times the time that it took."""
LONGEST_COUNT = 60.0
"""Seconds for which it holds at most."""


@dataclass(frozen=True, slots=True)
class _Count:
    """Stored bytes as they were listed, and how many had been added by then."""

    size: int
    added: int
    until: float


class Buckets:
    """The buckets at a store, each named after its owner and tagged with it."""

    def __init__(self, store: Store, *, most: int) -> None:
        self._store = store
        self._most = most
        self._owned: dict[str, float] = {}
        self._counted: dict[str, _Count] = {}
        self._added: Counter[str] = Counter()

    async def find(self, caller: Caller, bucket: str, key: str = "", *, field: str = "bucket") -> str:
        """The store's name of a bucket that is the caller's, or NotFound; a call about the bucket, or a key in it."""
        name = isolate(caller, bucket, field=field)
        concerns(f"{bucket}/{key}" if key else bucket)
        if not await self._is_owned(name, tenant_of(caller)):
            raise NotFound("No such bucket.", bucket=bucket)
        return name

    async def make(self, caller: Caller, bucket: str) -> None:
        """Make a bucket and tag it."""
        name, tenant, s3 = isolate(caller, bucket), tenant_of(caller), self._store.s3
        concerns(bucket)
        if await self._tag(name) is not None:
            raise AlreadyExists("This bucket exists.", bucket=bucket)
        if len([each async for each in self._named_after(tenant)]) >= self._most:
            raise ResourceExhausted(f"An organisation may have {self._most} buckets.")
        try:
            await s3.create_bucket(Bucket=name)
        except ClientError as error:
            if code_of(error) != "BucketAlreadyOwnedByYou":
                raise
            if (await s3.list_objects_v2(Bucket=name, MaxKeys=1)).get("Contents"):
                raise
            # without a tag and empty: whoever made it did not come to tagging it
        await s3.put_bucket_tagging(Bucket=name, Tagging={"TagSet": [{"Key": TAG, "Value": tenant}]})
        self._remember(name)

    async def delete(self, caller: Caller, bucket: str) -> None:
        """Delete a bucket that is empty."""
        name = await self.find(caller, bucket)
        await self._store.s3.delete_bucket(Bucket=name)
        self._owned.pop(name, None)

    async def of(self, caller: Caller) -> dict[str, datetime]:
        """When each of the caller's buckets was made, by the caller's name for it."""
        tenant = tenant_of(caller)
        found = {each["Name"]: each["CreationDate"] async for each in self._named_after(tenant)}
        owned = await asyncio.gather(*(self._is_owned(name, tenant) for name in found))
        return {
            name[len(tenant) + 1 :]: created
            for (name, created), is_owned in zip(found.items(), owned, strict=True)
            if is_owned
        }

    def grew(self, caller: Caller, size: int) -> None:
        """Take note of bytes that were stored."""
        self._added[caller.org] += size

    async def stored(self, org: str) -> int:
        """Bytes of an organisation's objects and of the parts of its unfinished uploads.

        Counted by listing, at most so often that a fiftieth of the time goes into it; in between, what was added here
        is added, and what was deleted is seen a little later.
        """
        counted = self._counted.get(org)
        now = time.monotonic()
        if counted is None or now > counted.until:
            added = self._added[org]
            size = await self._count(org)
            took = time.monotonic() - now
            if len(self._counted) >= KNOWN:
                self._counted.clear()
            counted = self._counted[org] = _Count(size, added, now + min(COUNTING * took, LONGEST_COUNT))
        return counted.size + self._added[org] - counted.added

    async def _count(self, org: str) -> int:
        size = 0
        async for bucket in self._named_after(org):
            async for page in self._pages("list_objects_v2", Bucket=bucket["Name"]):
                size += sum(each["Size"] for each in page.get("Contents", ()))
            async for page in self._pages("list_multipart_uploads", Bucket=bucket["Name"]):
                for upload in page.get("Uploads", ()):
                    which = {"Bucket": bucket["Name"], "Key": upload["Key"], "UploadId": upload["UploadId"]}
                    async for parts in self._pages("list_parts", **which):
                        size += sum(each["Size"] for each in parts.get("Parts", ()))
        return size

    async def _pages(self, operation: str, **arguments: Any) -> AsyncIterator[dict[str, Any]]:
        async for page in self._store.s3.get_paginator(operation).paginate(**arguments):
            yield page

    async def _is_owned(self, name: str, tenant: str) -> bool:
        if self._owned.get(name, 0.0) > time.monotonic():
            return True
        if await self._tag(name) != tenant:
            return False
        self._remember(name)
        return True

    async def _tag(self, name: str) -> str | None:
        """Whose a bucket is; None when it has no owner, or does not exist."""
        try:
            answer = await self._store.s3.get_bucket_tagging(Bucket=name)
        except ClientError as error:
            if code_of(error) in ("NoSuchTagSet", "NoSuchBucket"):
                return None
            raise
        return next((each["Value"] for each in answer["TagSet"] if each["Key"] == TAG), None)

    def _remember(self, name: str) -> None:
        if len(self._owned) >= KNOWN:
            self._owned.clear()
        self._owned[name] = time.monotonic() + OWNED

    async def _named_after(self, tenant: str) -> AsyncIterator[dict[str, Any]]:
        """The store's buckets whose names begin like a tenant's."""
        beginning = f"{tenant}-"
        token: dict[str, str] = {}
        while True:
            answer = await self._store.s3.list_buckets(Prefix=beginning, **token)
            for each in answer.get("Buckets", ()):
                name = each["Name"]
                if name.startswith(beginning) and name[len(beginning)] != "-":  # a doubled one goes on with a workload
                    yield each
            if not answer.get("ContinuationToken"):
                return
            token = {"ContinuationToken": answer["ContinuationToken"]}
