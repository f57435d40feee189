"""The key pairs of people's tokens: rows, sealed with the master key of the secret store."""

# ruff: noqa: S608 -- what is put into the texts are column lists of ours; values are parameters
from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from isa_common import Aborted, AlreadyExists, DeadlineExceeded, Row, Sql, Statement, Unavailable
from services.users.domain import keys
from services.users.domain.keys import Algorithm, SigningKey

COLUMNS = "kid, generation, algorithm, public_jwk, sealed_private, active_from, expires_at"
REFRESH = timedelta(seconds=30)
"""How old the knowledge may be by which a replica signs; a new key is published longer than that before it signs."""
KEPT = timedelta(minutes=10)
"""How long the keys are still used and published while the database is not reached."""
PUBLISHED = timedelta(seconds=1)
"""How old the published set may be: whoever asks has met a key that it does not know."""


def _key(row: Row) -> SigningKey:
    return SigningKey(
        kid=row["kid"],
        generation=row["generation"],
        algorithm=row["algorithm"],
        public_jwk=row["public_jwk"],
        sealed_private=row["sealed_private"],
        active_from=row["active_from"],
        expires_at=row["expires_at"],
    )


class Keyring:
    """The keys as this replica knows them, read again after half a minute."""

    def __init__(
        self,
        sql: Sql,
        *,
        master: Callable[[], Awaitable[bytes]],
        clock: Callable[[], datetime],
        algorithm: Algorithm,
        token_life: timedelta,
        publish_before: timedelta,
    ) -> None:
        self._sql = sql
        self._master = master
        self._clock = clock
        self._algorithm: Algorithm = algorithm
        self._token_life = token_life
        self._publish_before = max(publish_before, 2 * REFRESH)
        self._keys: list[SigningKey] = []
        self._read_at: datetime | None = None
        self._opened: dict[str, bytes] = {}
        self._reading = asyncio.Lock()

    async def published(self) -> dict[str, object]:
        """Return the JSON Web Key Set."""
        await self._fresh(at_most=PUBLISHED)
        return keys.published(self._keys, at=self._clock())

    async def signer(self) -> tuple[SigningKey, bytes]:
        """Return the key that signs now, and its private part as PEM; the first of all is made here."""
        await self._fresh()
        key = keys.signing(self._keys, at=self._clock())
        if key is None or key.algorithm != self._algorithm:
            await self.rotate(at_once=True, compromised=False)
            key = keys.signing(self._keys, at=self._clock())
            assert key is not None
        if key.kid not in self._opened:
            self._opened = {key.kid: keys.unseal(await self._master(), key.sealed_private, key.kid)}
        return key, self._opened[key.kid]

    async def rotate(self, *, at_once: bool = False, compromised: bool = False) -> SigningKey:
        """Add a key. The old ones stay published until their tokens have expired, unless they are compromised."""
        now = self._clock()
        await self._read()
        new = await asyncio.to_thread(
            keys.new_signing_key,
            self._algorithm,
            await self._master(),
            generation=max((key.generation for key in self._keys), default=0) + 1,
            active_from=now if at_once or compromised else now + self._publish_before,
        )
        old_end = now if compromised else new.active_from + self._token_life + REFRESH
        try:
            await self._sql.execute_batch(
                [
                    Statement(
                        f"INSERT INTO signing_keys ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, NULL)",
                        new.kid,
                        new.generation,
                        new.algorithm,
                        new.public_jwk,
                        new.sealed_private,
                        new.active_from,
                    ),
                    Statement(
                        "UPDATE signing_keys SET expires_at = least(expires_at, $2) WHERE kid <> $1",
                        new.kid,
                        old_end,
                    ),
                ]
            )
        except (AlreadyExists, Aborted):  # another replica was first, which is as good
            await self._read()
            return max(self._keys, key=lambda key: key.generation)
        await self._read()
        return new

    async def _fresh(self, *, at_most: timedelta = REFRESH) -> None:
        if self._is_older(at_most):
            async with self._reading:
                if self._is_older(at_most):
                    await self._read_or_keep()

    async def _read_or_keep(self) -> None:
        """Read the keys; while the database is not reached, what was read not long ago is good enough."""
        try:
            await self._read()
        except (Unavailable, DeadlineExceeded):
            if self._is_older(KEPT):
                raise

    def _is_older(self, age: timedelta) -> bool:
        return self._read_at is None or self._clock() - self._read_at > age

    async def _read(self) -> None:
        at = self._clock()
        rows = await self._sql.query(f"SELECT {COLUMNS} FROM signing_keys ORDER BY generation")
        self._keys, self._read_at = list(map(_key, rows)), at

    def expired(self, *, at: datetime) -> list[Statement]:
        """Return what deletes the keys that no good token was signed with."""
        return [Statement("DELETE FROM signing_keys WHERE expires_at <= $1", at)]
