"""The S3 store: its client, what its errors mean, and signatures that reach one bucket."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.auth import S3SigV4PostAuth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as NoConnection

from isa_common import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    IsaError,
    NotFound,
    PreconditionFailed,
    ResourceExhausted,
    Unavailable,
)
from kernel import ErrorMap
from services.adapters.minio.codec import LONGEST_EXPIRY

SESSION = 3600
"""Seconds that a signing session lives at least; it is used again while it outlives the signature."""
SESSIONS = 1000
"""Signing sessions that are kept."""
AGAIN = timedelta(seconds=1)
_CONNECT = 2.0
"""Seconds to connect: the store is near."""


class Store:
    """A connected S3 store."""

    def __init__(
        self,
        url: str,
        *,
        public_url: str,
        region: str,
        role: str,
        timeout: timedelta,
        secret: Callable[[str], Awaitable[str]],
    ) -> None:
        self.s3: Any = None  # clients are made from a description at run time, and have no type
        self._sts: Any = None
        self._url = url
        self._public_url = public_url.rstrip("/")
        self._region = region
        self._role = role
        self._timeout = timeout.total_seconds()
        self._secret = secret
        self._open = AsyncExitStack()
        self._sessions: dict[tuple[str, str], _Session] = {}

    async def start(self) -> None:
        """Read the keys and prepare the clients; nothing is connected yet."""
        config = AioConfig(
            connect_timeout=_CONNECT,
            read_timeout=self._timeout,
            max_pool_connections=64,
            retries={"total_max_attempts": 1},  # whether a call may be repeated is for its caller to say
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"addressing_style": "path"},
        )
        options = {
            "endpoint_url": self._url,
            "region_name": self._region,
            "aws_access_key_id": await self._secret("minio-access-key"),
            "aws_secret_access_key": await self._secret("minio-secret-key"),
            "config": config,
        }
        session = get_session()
        self.s3 = await self._open.enter_async_context(session.create_client("s3", **options))
        self._sts = await self._open.enter_async_context(session.create_client("sts", **options))

    async def stop(self) -> None:
        """Close the connections."""
        await self._open.aclose()

    async def signed_url(
        self,
        method: str,
        bucket: str,
        key: str,
        *,
        expires_in: int,
        headers: Mapping[str, str] = {},
        query: Mapping[str, str] = {},
    ) -> tuple[str, datetime]:
        """A URL for one request with these headers, and when it ends."""
        credentials = await self._credentials(bucket, "s3:GetObject" if method == "GET" else "s3:PutObject", expires_in)
        url = f"{self._public_url}/{bucket}/{quote(key, safe='/~')}"
        request = AWSRequest(method=method, url=url, headers=dict(headers), params=dict(query))
        ends = datetime.now(UTC) + timedelta(seconds=expires_in)
        S3SigV4QueryAuth(credentials, "s3", self._region, expires=expires_in).add_auth(request)
        return request.url, ends

    async def signed_form(
        self, bucket: str, conditions: list[Any], fields: Mapping[str, str], *, expires_in: int
    ) -> tuple[str, dict[str, str], datetime]:
        """Where a form goes, its fields, and when it ends; conditions are S3's, besides that of the bucket."""
        credentials = await self._credentials(bucket, "s3:PutObject", expires_in)
        ends = datetime.now(UTC) + timedelta(seconds=expires_in)
        url = f"{self._public_url}/{bucket}"
        request = AWSRequest(method="POST", url=url)
        request.context["s3-presign-post-fields"] = dict(fields)
        request.context["s3-presign-post-policy"] = {
            "expiration": ends.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "conditions": [{"bucket": bucket}, *conditions],
        }
        S3SigV4PostAuth(credentials, "s3", self._region).add_auth(request)
        return url, request.context["s3-presign-post-fields"], ends

    async def _credentials(self, bucket: str, action: str, lasting: int) -> Credentials:
        """Keys that can do one thing in one bucket.

        The adapter's own keys would sign as well, but MinIO takes headers that were not signed: with
        `x-amz-copy-source`, whoever holds a URL for storing one object would read every organisation's.
        """
        session = self._sessions.get((bucket, action))
        if session is None or session.ends < time.time() + lasting:
            while len(self._sessions) >= SESSIONS:
                del self._sessions[next(iter(self._sessions))]
            statement = {"Effect": "Allow", "Action": [action], "Resource": [f"arn:aws:s3:::{bucket}/*"]}
            answer = await self._sts.assume_role(
                RoleArn=self._role,
                RoleSessionName="isa-objects",
                DurationSeconds=min(max(2 * lasting, SESSION), LONGEST_EXPIRY),
                Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}),
            )
            made = answer["Credentials"]
            keys = Credentials(made["AccessKeyId"], made["SecretAccessKey"], made["SessionToken"])
            session = self._sessions[bucket, action] = _Session(keys, made["Expiration"].timestamp())
        return session.keys


@dataclass(frozen=True, slots=True)
class _Session:
    keys: Credentials
    ends: float


_MEANING: dict[str, tuple[type[IsaError], str]] = {
    "404": (NotFound, "No such object."),
    "NoSuchKey": (NotFound, "No such object."),
    "NoSuchBucket": (NotFound, "No such bucket."),
    "NoSuchUpload": (NotFound, "No such upload."),
    "BucketAlreadyExists": (AlreadyExists, "This bucket exists."),
    "BucketAlreadyOwnedByYou": (AlreadyExists, "This bucket exists."),
    "BucketNotEmpty": (FailedPrecondition, "This bucket is not empty."),
    "304": (PreconditionFailed, "The object's etag is this one."),
    "412": (PreconditionFailed, "The object's etag is another one."),
    "PreconditionFailed": (PreconditionFailed, "The object's etag is another one."),
    "ConditionalRequestConflict": (Aborted, "Another call changed this object at the same time."),
    "OperationAborted": (Aborted, "Another call changed this bucket at the same time."),
    "EntityTooLarge": (InvalidArgument, "This is larger than an object may be in one piece."),
    "EntityTooSmall": (InvalidArgument, "Each part but the last has at least 5 MiB."),
    "InvalidPart": (InvalidArgument, "A part was not uploaded, or has another etag."),
    "InvalidPartOrder": (InvalidArgument, "Parts come in the order of their numbers."),
    "XMinioInvalidObjectName": (InvalidArgument, "The store takes no such key."),
    "XMinioInvalidResourceName": (InvalidArgument, "The store takes no such name."),
    "KeyTooLongError": (InvalidArgument, "The store takes no key of this length."),
    "InvalidArgument": (InvalidArgument, "The store refuses an argument of this call."),
    "MetadataTooLarge": (InvalidArgument, "The metadata are too large."),
    "XMinioStorageFull": (ResourceExhausted, "The store is full."),
    "XMinioAdminBucketQuotaExceeded": (ResourceExhausted, "The bucket is full."),
    "QuotaExceeded": (ResourceExhausted, "The store is full."),
    "TooManyBuckets": (ResourceExhausted, "The store takes no more buckets."),
}
"""S3's codes, and what stands in their place where an answer to HEAD has none."""
_FIELDS = {
    "EntityTooLarge": "size",
    "EntityTooSmall": "parts",
    "InvalidPart": "parts",
    "InvalidPartOrder": "parts",
    "XMinioInvalidObjectName": "key",
    "XMinioInvalidResourceName": "upload_id",
    "KeyTooLongError": "key",
    "MetadataTooLarge": "metadata",
}
_LATER = frozenset({"SlowDown", "SlowDownRead", "SlowDownWrite", "RequestTimeout", "ServiceUnavailable"})
_FULL = 507


def code_of(error: ClientError) -> str:
    """S3's code of an error."""
    return str(error.response.get("Error", {}).get("Code", ""))


def meaning(error: BaseException) -> IsaError:
    """What a caller may know of an error of the store."""
    assert isinstance(error, ClientError), "the table says so"
    code = code_of(error)
    if code in _MEANING:
        kind, sentence = _MEANING[code]
        return kind(sentence, field=_FIELDS.get(code))
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if status == _FULL:
        return ResourceExhausted("The store is full.")
    if code in _LATER or status >= 500:
        return Unavailable("The object store cannot answer now.", retry_after=AGAIN)
    return Internal("The object store could not do this.")


def _away(_: BaseException) -> IsaError:
    return Unavailable("The object store could not be reached.", retry_after=AGAIN)


UNREACHED = (NoConnection, HTTPClientError, aiohttp.ClientError, OSError)
ERRORS: ErrorMap = {ClientError: meaning, **dict.fromkeys(UNREACHED, _away)}
