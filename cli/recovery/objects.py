"""Objects of an S3 store: every bucket with its tags, every object with its metadata; content once, by its hash.

A backup that is there is added to: an object that did not change is not read again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import BotoCoreError, ClientError

from cli.recovery.folder import Backup, Damaged, RecoveryError, read_lines, write_lines
from cli.recovery.place import Place

STORE = "objects"
INDEX = "objects.jsonl"
CHUNK = 1 << 20
PART = 64 << 20
"""Objects over this size are put in parts of it."""
KEPT = ("ContentType", "ContentEncoding", "ContentDisposition", "ContentLanguage", "CacheControl", "Metadata")


@asynccontextmanager
async def connected(place: Place) -> AsyncIterator[Any]:
    """Return a client of the store."""
    options = {
        "endpoint_url": place["MINIO_URL"],
        "region_name": place.addresses.get("MINIO_REGION", "us-east-1"),
        "aws_access_key_id": place.secret("minio-access-key"),
        "aws_secret_access_key": place.secret("minio-secret-key"),
        "config": AioConfig(s3={"addressing_style": "path"}, retries={"total_max_attempts": 4}),
    }
    try:
        async with get_session().create_client("s3", **options) as s3:
            yield s3
    except (BotoCoreError, ClientError) as error:
        raise RecoveryError(f"The object store at {place['MINIO_URL']}: {error}") from error


async def backup(place: Place, root: Path) -> Backup:
    """Write what the store has and this folder has not."""
    known = index_of(root / STORE)
    backup = Backup.begin(root, STORE)
    rows: list[dict[str, Any]] = []
    async with connected(place) as s3:
        buckets = [bucket["Name"] for bucket in (await s3.list_buckets())["Buckets"]]
        backup.facts = {"buckets": {bucket: await tags(s3, bucket) for bucket in buckets}}
        for bucket in buckets:
            async for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
                for listed in page.get("Contents", ()):
                    changed = f"{listed['ETag']} {listed['LastModified'].isoformat()}"
                    row = known.get((bucket, listed["Key"]))
                    if row is None or row["changed"] != changed:
                        row = await saved(s3, bucket, listed["Key"], changed, backup.folder)
                    if row:
                        rows.append(row)
    backup.items = write_lines(backup.folder / INDEX, iter(rows))
    needed = {row["sha256"] for row in rows}
    for blob in (backup.folder / "blobs").glob("*"):
        if blob.name not in needed:
            blob.unlink()
    return backup.end()


def index_of(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the objects of an earlier backup whose content is there."""
    if not (folder / INDEX).exists():
        return {}
    rows = (row for row in read_lines(folder / INDEX) if (folder / "blobs" / row["sha256"]).exists())
    return {(row["bucket"], row["key"]): row for row in rows}


async def tags(s3: Any, bucket: str) -> list[dict[str, str]]:
    """Return the tags of a bucket; the adapter knows its owner by one."""
    try:
        found: list[dict[str, str]] = (await s3.get_bucket_tagging(Bucket=bucket))["TagSet"]
    except ClientError as error:
        if error.response["Error"]["Code"] == "NoSuchTagSet":
            return []
        raise
    return found


async def saved(s3: Any, bucket: str, key: str, changed: str, folder: Path) -> dict[str, Any] | None:
    """Write one object; return its line of the index, nothing when it was deleted meanwhile."""
    try:
        answer = await s3.get_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response["Error"]["Code"] == "NoSuchKey":
            return None
        raise
    blobs = folder / "blobs"
    blobs.mkdir(exist_ok=True)
    partial = blobs / "partial"
    digest, size = hashlib.sha256(), 0
    with partial.open("wb") as file:
        async for part in answer["Body"].iter_chunks(CHUNK):
            digest.update(part)
            size += file.write(part)
    if size != answer["ContentLength"]:
        raise RecoveryError(f"{bucket}/{key} broke off after {size} of {answer['ContentLength']} bytes.")
    partial.replace(blobs / digest.hexdigest())
    about = {name: answer[name] for name in KEPT if answer.get(name)}
    return {
        "bucket": bucket,
        "key": key,
        "size": size,
        "sha256": digest.hexdigest(),
        "changed": changed,
        "about": about,
    }


async def restore(place: Place, root: Path) -> Backup:
    """Make every bucket, tag it, and put every object; what is there already under the same name is replaced."""
    backup = Backup.open(root, STORE)
    async with connected(place) as s3:
        there = {bucket["Name"] for bucket in (await s3.list_buckets())["Buckets"]}
        for bucket, tagged in backup.facts["buckets"].items():
            if bucket not in there:
                await s3.create_bucket(Bucket=bucket)
            if tagged:
                await s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": tagged})
        for row in read_lines(backup.folder / INDEX):
            await put(s3, row, backup.folder / "blobs" / row["sha256"])
    return backup


async def put(s3: Any, row: dict[str, Any], blob: Path) -> None:
    """Put one object, a large one in parts."""
    where = {"Bucket": row["bucket"], "Key": row["key"]}
    with blob.open("rb") as file:
        if row["size"] <= PART:
            await s3.put_object(**where, **row["about"], Body=file.read())
            return
        upload = (await s3.create_multipart_upload(**where, **row["about"]))["UploadId"]
        parts: list[dict[str, Any]] = []
        while data := file.read(PART):
            number = len(parts) + 1
            answer = await s3.upload_part(**where, UploadId=upload, PartNumber=number, Body=data)
            parts.append({"PartNumber": number, "ETag": answer["ETag"]})
        await s3.complete_multipart_upload(**where, UploadId=upload, MultipartUpload={"Parts": parts})


def content(root: Path) -> dict[str, str]:
    """Return every bucket with its tags, and every object with its hash and metadata."""
    backup = Backup.open(root, STORE)
    found = {f"{name} tags": json.dumps(tagged, sort_keys=True) for name, tagged in backup.facts["buckets"].items()}
    for row in read_lines(backup.folder / INDEX):
        if not (backup.folder / "blobs" / row["sha256"]).exists():
            raise Damaged(f"{backup.folder} has no content of {row['bucket']}/{row['key']}.")
        found[f"{row['bucket']}/{row['key']}"] = json.dumps([row["sha256"], row["about"]], sort_keys=True)
    return found
