"""Presigned URLs and forms in hostile hands, over HTTP at the store: what was signed happens, and nothing else."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import httpx
import pytest
import pytest_asyncio

from isa_common import NotFound, Objects, SignedForm, SignedUrl
from tests.conformance.conftest import Engines, FakeParts, Secrets, engines, person, serving
from tests.conformance.stores import store

__all__ = ["engines"]

SECRET = b"what only the victim may read"
MINE = b"what the attacker has"
REFUSED = range(400, 600)


@dataclass(frozen=True)
class Scene:
    """Two organisations with a bucket of one name, and their names at the store, which a URL shows."""

    attacker: Objects
    victim: Objects
    own: str
    other: str
    http: httpx.AsyncClient

    async def unharmed(self) -> bool:
        """Whether the victim still has what it had, and nothing more."""
        keys = [each.key async for each in self.victim.list("files")]
        return keys == ["secret"] and await self.victim.get("files", "secret") == SECRET


@pytest_asyncio.fixture
async def scene(engines: Engines) -> AsyncIterator[Scene]:
    """The adapter and its store, as an attacker sees them."""
    from services.adapters.minio.app import Settings, create_app

    first, second = (f"org-{uuid.uuid4().hex[:16]}" for _ in range(2))
    settings = Settings(url=f"http://{engines.address('minio')}")
    async with (
        serving(create_app(settings, FakeParts(Secrets(engines.secrets)))) as address,
        person(address, first) as attacker,
        person(address, second) as victim,
        httpx.AsyncClient(timeout=10) as http,
    ):
        for isa, key, data in ((attacker, "mine", MINE), (victim, "secret", SECRET)):
            await isa.objects.create_bucket("files")
            await isa.objects.put("files", key, data)
        scene = Scene(attacker.objects, victim.objects, f"{first}-files", f"{second}-files", http)
        yield scene
        assert await scene.unharmed()
        for objects in (attacker.objects, victim.objects):
            await objects.delete_many("files", [each.key async for each in objects.list("files")])
            await objects.delete_bucket("files")


def changed(url: str, *, path: str | None = None, query: Mapping[str, str] = {}, leave_out: str = "") -> str:
    """The same URL with another path or other parameters."""
    parts = urlsplit(url)
    parameters = {**dict(parse_qsl(parts.query)), **query}
    parameters.pop(leave_out, None)
    return urlunsplit(parts._replace(path=parts.path if path is None else path, query=urlencode(parameters)))


async def sent(scene: Scene, signed: SignedUrl, data: bytes, headers: Mapping[str, str] = {}) -> httpx.Response:
    """An upload with a signed URL, its headers, and those of an attacker."""
    return await scene.http.put(signed.url, content=data, headers={**signed.headers, **headers})


async def posted(
    scene: Scene, form: SignedForm, data: bytes, *, fields: Mapping[str, str] = {}, url: str = ""
) -> httpx.Response:
    """A form as a browser sends it, with an attacker's fields."""
    return await scene.http.post(url or form.url, data={**form.fields, **fields}, files={"file": ("f", data)})


async def test_what_is_signed_works(scene: Scene) -> None:
    data = b"x" * 100_000
    put = await scene.attacker.presign_put(
        "files", "a b+c/é.txt", size=len(data), content_type="text/plain", sha256=hashlib.sha256(data).digest()
    )
    form = await scene.attacker.presign_post("files", prefix="in/", max_size=10, content_type="image/*")
    reading = await scene.attacker.presign_get("files", "a b+c/é.txt", download_as="naïve “x”.txt", content_type="a/b")

    assert (await sent(scene, put, data)).status_code == 200
    fields = {"key": "in/cat", "Content-Type": "image/png"}
    assert (await posted(scene, form, b"meow", fields=fields)).status_code in (200, 204)
    answer = await scene.http.get(reading.url)

    assert (answer.status_code, answer.content, answer.headers["content-type"]) == (200, data, "a/b")
    assert quote("naïve “x”.txt") in answer.headers["content-disposition"]
    assert await scene.attacker.get("files", "in/cat") == b"meow"
    assert (await scene.attacker.stat("files", "a b+c/é.txt")).content_type == "text/plain"


@pytest.mark.parametrize("method", ["PUT", "DELETE", "HEAD", "POST"])
async def test_a_url_for_reading_does_nothing_else(scene: Scene, method: str) -> None:
    signed = await scene.attacker.presign_get("files", "mine")

    answer = await scene.http.request(method, signed.url, content=b"x" if method in ("PUT", "POST") else None)

    assert answer.status_code in REFUSED
    assert await scene.attacker.get("files", "mine") == MINE


@pytest.mark.parametrize("method", ["GET", "DELETE", "HEAD", "POST"])
async def test_a_url_for_storing_does_nothing_else(scene: Scene, method: str) -> None:
    signed = await scene.attacker.presign_put("files", "mine")

    assert (await scene.http.request(method, signed.url)).status_code in REFUSED
    assert await scene.attacker.get("files", "mine") == MINE


async def test_a_url_is_of_one_key_of_one_bucket(scene: Scene) -> None:
    reading = await scene.attacker.presign_get("files", "mine")
    storing = await scene.attacker.presign_put("files", "mine")
    own, other = scene.own, scene.other
    paths = [
        f"/{other}/secret",
        f"/{own}/secret",
        f"/{own}/../{other}/secret",
        f"/{own}/%2e%2e/{other}/secret",
        f"/{own}/mine/../../{other}/secret",
        f"/{own}%2f..%2f{other}/secret",
        f"//{other}/secret",
        f"/{own}",
        f"/{other}",
        f"/{own}/",
        "/",
        f"/{own}/mine/x",
        f"/{own}/MINE",
    ]

    for path in paths:
        answer = await scene.http.get(changed(reading.url, path=path))
        assert answer.status_code in REFUSED, path
        assert SECRET not in answer.content
        assert (await scene.http.put(changed(storing.url, path=path), content=b"x")).status_code in REFUSED, path
    host = httpx.URL(reading.url).copy_with(host="localhost")
    assert (await scene.http.get(host)).status_code in REFUSED
    assert [each.key async for each in scene.attacker.list("files")] == ["mine"]


async def test_a_url_takes_no_other_parameters(scene: Scene) -> None:
    reading = await scene.attacker.presign_get("files", "mine", content_type="text/plain")
    storing = await scene.attacker.presign_put("files", "mine")
    longer = {"X-Amz-Expires": "604800"}
    for query in (
        longer,
        {"X-Amz-Date": "20300101T000000Z"},
        {"X-Amz-SignedHeaders": ""},
        {"X-Amz-Signature": "0" * 64},
        {"response-content-type": "text/html"},
        {"acl": ""},
        {"uploads": ""},
        {"tagging": ""},
        {"policy": ""},
        {"versionId": "null"},
    ):
        assert (await scene.http.get(changed(reading.url, query=query))).status_code in REFUSED, query
        assert (await scene.http.put(changed(storing.url, query=query), content=b"x")).status_code in REFUSED, query
    for name in ("X-Amz-Signature", "X-Amz-Credential", "X-Amz-Security-Token", "X-Amz-Expires", "X-Amz-Algorithm"):
        assert (await scene.http.get(changed(reading.url, leave_out=name))).status_code in REFUSED, name
    parts = {"uploadId": "x", "partNumber": "1"}
    assert (await scene.http.put(changed(storing.url, query=parts), content=b"x")).status_code in REFUSED


async def test_headers_that_nobody_signed_do_not_read_for_the_attacker(scene: Scene) -> None:
    """MinIO copies what an unsigned header names, with all that the signing key may read: ours may read nothing."""
    sources = [
        f"/{scene.other}/secret",
        f"{scene.other}/secret",
        f"%2F{scene.other}%2Fsecret",
        f"/{scene.own}/../{scene.other}/secret",
        f"/{scene.own}/mine",
    ]
    for source in sources:
        for size in (None, 0):
            signed = await scene.attacker.presign_put("files", "copied", size=size)
            for extra in ({}, {"x-amz-metadata-directive": "REPLACE"}, {"x-amz-copy-source-range": "bytes=0-5"}):
                answer = await sent(scene, signed, b"", {"x-amz-copy-source": source, **extra})
                assert answer.status_code in REFUSED, source
                assert SECRET not in answer.content
    with pytest.raises(NotFound):
        await scene.attacker.stat("files", "copied")
    signed = await scene.attacker.presign_put("files", "tagged", size=1)
    for headers in (
        {"x-amz-tagging": "isa-tenant=org-x"},
        {"x-amz-meta-isa-sha256": "0" * 64},
        {"x-amz-acl": "public-read"},
        {"x-amz-storage-class": "STANDARD"},
        {"x-amz-object-lock-mode": "COMPLIANCE", "x-amz-object-lock-retain-until-date": "2100-01-01T00:00:00Z"},
        {"x-amz-server-side-encryption": "AES256"},
        {"x-amz-bypass-governance-retention": "true"},
    ):
        answer = await sent(scene, signed, b"x", headers)
        assert answer.status_code in (*REFUSED, 200)
    found = await scene.attacker.stat("files", "tagged") if await scene.attacker.exists("files", "tagged") else None
    assert found is None or (found.metadata, found.sha256) == ({}, b"")


async def test_an_upload_has_the_size_type_and_hash_that_were_signed(scene: Scene) -> None:
    digest = hashlib.sha256(b"hello").digest()
    signed = await scene.attacker.presign_put("files", "a", size=5, content_type="text/plain", sha256=digest)
    of_world = base64.b64encode(hashlib.sha256(b"world").digest()).decode()

    async def chunks() -> AsyncIterator[bytes]:
        yield b"hello, and much more than that"

    for data, headers in (
        (b"hell", {"Content-Length": "4"}),
        (b"hello!", {"Content-Length": "6"}),
        (b"world", {}),
        (b"world", {"x-amz-checksum-sha256": of_world}),
        (b"hello", {"Content-Type": "text/html"}),
        (b"hello", {"Content-Type": ""}),
    ):
        assert (await sent(scene, signed, data, headers)).status_code in REFUSED, (data, headers)
    unsized = {name: value for name, value in signed.headers.items() if name != "Content-Length"}
    assert (await scene.http.put(signed.url, content=chunks(), headers=unsized)).status_code in REFUSED
    assert (await scene.http.put(signed.url, content=b"hello")).status_code in REFUSED
    with pytest.raises(NotFound):
        await scene.attacker.stat("files", "a")
    assert (await sent(scene, signed, b"hello")).status_code == 200


async def test_a_form_has_the_key_size_and_type_that_were_signed(scene: Scene) -> None:
    exact = await scene.attacker.presign_post("files", "a", min_size=2, max_size=5, content_type="text/plain")
    below = await scene.attacker.presign_post("files", prefix="in/", max_size=5, content_type="image/*")
    typed = {"Content-Type": "image/png"}

    for form, data, fields in (
        (exact, b"x", {}),
        (exact, b"123456", {}),
        (exact, b"123", {"key": "b"}),
        (exact, b"123", {"key": "in/../a"}),
        (exact, b"123", {"Content-Type": "text/html"}),
        (exact, b"123", {"x-amz-meta-isa-sha256": "0" * 64}),
        (exact, b"123", {"x-amz-signature": "0" * 64}),
        (exact, b"123", {"policy": below.fields["policy"]}),
        (below, b"123", {"key": "secret", **typed}),
        (below, b"123", {"key": "in/../secret", **typed}),
        (below, b"123", {"key": f"in/../../{scene.other}/x", **typed}),
        (below, b"123", {"key": "in/a", "Content-Type": "text/html"}),
        (below, b"123456", {"key": "in/a", **typed}),
    ):
        assert (await posted(scene, form, data, fields=fields)).status_code in REFUSED, fields
    for bucket in (scene.other, f"{scene.own}/../{scene.other}"):
        url = changed(exact.url, path=f"/{bucket}")
        assert (await posted(scene, exact, b"123", url=url)).status_code in REFUSED
    assert [each.key async for each in scene.attacker.list("files")] == ["mine"]
    assert (await posted(scene, exact, b"123")).status_code in (200, 204)


def widened(policy: str) -> str:
    """A policy that allows what its maker did not."""
    allowed = json.loads(base64.b64decode(policy))
    allowed["conditions"] = [each for each in allowed["conditions"] if "content-length-range" not in each]
    allowed["expiration"] = "2100-01-01T00:00:00Z"
    return base64.b64encode(json.dumps(allowed).encode()).decode()


async def test_a_policy_cannot_be_rewritten(scene: Scene) -> None:
    form = await scene.attacker.presign_post("files", "a", max_size=5)

    fields = {"policy": widened(form.fields["policy"])}

    assert (await posted(scene, form, b"123456789", fields=fields)).status_code in REFUSED


async def test_a_signature_ends(scene: Scene) -> None:
    short = timedelta(seconds=1)
    reading = await scene.attacker.presign_get("files", "mine", expires_in=short)
    storing = await scene.attacker.presign_put("files", "late", expires_in=short)
    form = await scene.attacker.presign_post("files", "late", max_size=5, expires_in=short)

    async with asyncio.timeout(15):
        while (await scene.http.get(reading.url)).status_code == 200:
            await asyncio.sleep(0.1)
        while (await sent(scene, storing, b"x")).status_code == 200:
            await asyncio.sleep(0.1)
        while (await posted(scene, form, b"x")).status_code in (200, 204):
            await asyncio.sleep(0.1)
    for _ in range(2):
        assert (await scene.http.get(reading.url)).status_code in REFUSED
        assert (await sent(scene, storing, b"x")).status_code in REFUSED


async def test_the_session_in_a_url_does_one_thing_in_one_bucket(scene: Scene, engines: Engines) -> None:
    """Whoever holds a URL has the token of its session, and not its secret key; and even that would not help."""
    signed = await scene.attacker.presign_put("files", "mine")
    query = dict(parse_qsl(urlsplit(signed.url).query))
    claims = query["X-Amz-Security-Token"].split(".")[1]
    told = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))

    assert engines.secrets["minio-secret-key"] not in json.dumps(told) + signed.url
    policy = json.loads(base64.b64decode(told["sessionPolicy"]))
    [statement] = policy["Statement"]
    assert (statement["Action"], statement["Resource"]) == (["s3:PutObject"], [f"arn:aws:s3:::{scene.own}/*"])


async def test_without_a_signature_nothing_is_served(scene: Scene, engines: Engines) -> None:
    base = f"http://{engines.address('minio')}"
    for path in (f"/{scene.other}/secret", f"/{scene.other}", "/", f"/{scene.other}?list-type=2", f"/{scene.own}/mine"):
        assert (await scene.http.get(base + path)).status_code in REFUSED
    async with store(engines) as s3:
        tags = (await s3.get_bucket_tagging(Bucket=scene.other))["TagSet"]
    assert [tag["Value"] for tag in tags] == [scene.other.removesuffix("-files")]
