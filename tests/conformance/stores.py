"""The S3 store itself, past the adapter."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session

from tests.conformance.conftest import Engines


@asynccontextmanager
async def store(engines: Engines) -> AsyncIterator[Any]:
    """A client of the engine under test."""
    async with get_session().create_client(
        "s3",
        endpoint_url=f"http://{engines.address('minio')}",
        region_name="us-east-1",
        aws_access_key_id=engines.secrets["minio-access-key"],
        aws_secret_access_key=engines.secrets["minio-secret-key"],
        config=AioConfig(s3={"addressing_style": "path"}),
    ) as client:
        yield client


async def uploads(client: Any, bucket: str) -> list[dict[str, Any]]:
    """The unfinished uploads of a bucket."""
    found: list[dict[str, Any]] = (await client.list_multipart_uploads(Bucket=bucket)).get("Uploads", [])
    return found
