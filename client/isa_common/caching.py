"""Typed values in the cache: `CacheManager`. Needs `isa-common[typed]`."""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any, Final, Generic, TypeVar, cast, overload

from isa_common._cache import Cache
from isa_common._typed import Codec, Format
from isa_common.errors import Aborted, DeadlineExceeded, IsaError, ResourceExhausted, Unavailable

__all__ = ["CacheManager"]

T = TypeVar("T")
D = TypeVar("D")

_AWAY = (Unavailable, DeadlineExceeded, ResourceExhausted)
"""Why a cache may not answer; what is cached can be loaded instead."""
_PLAIN, _ZLIB, _NOTHING = b"\x00", b"\x01", b"\x02"
"""The first byte of a stored value."""
_MISSING: Final[Any] = object()

log = logging.getLogger("isa_common.caching")


class CacheManager(Generic[T]):
    """Values of one type under keys with a prefix, for a time.

    Values longer than `compress_above` bytes are compressed. What cannot be read, because the type has changed, counts
    as absent.
    """

    def __init__(
        self,
        cache: Cache,
        kind: type[T],
        *,
        prefix: str,
        ttl: timedelta = timedelta(minutes=5),
        absent_ttl: timedelta | None = None,
        form: Format = "msgpack",
        compress_above: int = 4096,
        load_within: timedelta = timedelta(seconds=10),
    ) -> None:
        """Prepare; with `absent_ttl`, that there is nothing to load is remembered so long.

        `load_within` is how long one who misses a value waits for another who loads it already.
        """
        self._cache = cache
        self._codec = Codec(kind, form)
        self._prefix = prefix
        self._ttl = ttl
        self._absent_ttl = absent_ttl
        self._compress_above = compress_above
        self._load_within = load_within
        self._loading: dict[str, asyncio.Task[T | None]] = {}

    @overload
    async def get(self, key: str) -> T | None: ...

    @overload
    async def get(self, key: str, default: D) -> T | D: ...

    async def get(self, key: str, default: Any = None) -> Any:
        """Return a value, or the default when there is none."""
        found = self._read(await self._cache.get(self._prefix + key, b""))
        return default if found is None or found is _MISSING else found

    async def get_many(self, keys: Iterable[str]) -> dict[str, T]:
        """Return those of the values that are there."""
        wanted = {self._prefix + key: key for key in keys}
        stored = await self._cache.get_many(wanted)
        read = {wanted[key]: self._read(data) for key, data in stored.items()}
        return {key: value for key, value in read.items() if value is not None and value is not _MISSING}

    async def set(self, key: str, value: T, *, ttl: timedelta | None = None) -> None:
        """Store a value."""
        await self._cache.set(self._prefix + key, self._written(value), ttl=ttl or self._ttl)

    async def set_many(self, values: Mapping[str, T], *, ttl: timedelta | None = None) -> None:
        """Store values."""
        written = {self._prefix + key: self._written(value) for key, value in values.items()}
        await self._cache.set_many(written, ttl=ttl or self._ttl)

    async def delete(self, *keys: str) -> int:
        """Forget values, and tell how many there were."""
        return await self._cache.delete_many(self._prefix + key for key in keys)

    @overload
    async def get_or_load(self, key: str, load: Callable[[], Awaitable[T]], *, ttl: timedelta | None = None) -> T: ...

    @overload
    async def get_or_load(
        self, key: str, load: Callable[[], Awaitable[T | None]], *, ttl: timedelta | None = None
    ) -> T | None: ...

    async def get_or_load(
        self, key: str, load: Callable[[], Awaitable[T | None]], *, ttl: timedelta | None = None
    ) -> T | None:
        """Return a value; when there is none, load it and store it.

        Of all who miss it at the same time, in all processes, one loads it; the others wait, or load it themselves
        after `load_within`. While the cache is away, values are loaded and not stored.
        """
        try:
            found = self._read(await self._cache.get(self._prefix + key, b""))
        except _AWAY:
            log.warning("The cache is away; %s%s is loaded.", self._prefix, key)
            return await load()
        if found is not _MISSING:
            return cast("T | None", found)
        loading = self._loading.get(key)
        if loading is None or loading.get_loop() is not asyncio.get_running_loop():
            loading = self._loading[key] = asyncio.ensure_future(self._load(key, load, ttl or self._ttl))
            loading.add_done_callback(lambda _: self._loading.pop(key, None))
        return await asyncio.shield(loading)

    async def _load(self, key: str, load: Callable[[], Awaitable[T | None]], ttl: timedelta) -> T | None:
        name = self._prefix + key
        async with self._alone(name):
            with suppress(*_AWAY):
                found: T | None = self._read(await self._cache.get(name, b""))
                if found is not _MISSING:
                    return found  # another loaded it while this one waited
            value = await load()
            with suppress(*_AWAY):
                if value is not None:
                    await self._cache.set(name, self._written(value), ttl=ttl)
                elif self._absent_ttl is not None:
                    await self._cache.set(name, _NOTHING, ttl=self._absent_ttl)
            return value

    @asynccontextmanager
    async def _alone(self, name: str) -> AsyncIterator[None]:
        """Hold the lock of a value, where it is to be had: a value that two load is better than none."""
        lock = self._cache.lock(name, wait=self._load_within)
        try:
            await lock.__aenter__()
        except (Aborted, *_AWAY):
            yield
            return
        try:
            yield
        finally:
            with suppress(IsaError):
                await lock.__aexit__(None, None, None)

    def _written(self, value: T) -> bytes:
        data = self._codec.encode(value)
        if len(data) > self._compress_above:
            return _ZLIB + zlib.compress(data, 1)
        return _PLAIN + data

    def _read(self, data: bytes) -> Any:
        """The value of what is stored; None when it is known that there is nothing to load."""
        if data == _NOTHING:
            return None
        try:
            if data.startswith(_PLAIN):
                return self._codec.decode(data[1:])
            if data.startswith(_ZLIB):
                return self._codec.decode(zlib.decompress(data[1:]))
        except (ValueError, zlib.error):
            log.info("A value under %s cannot be read; it counts as absent.", self._prefix)
        return _MISSING
