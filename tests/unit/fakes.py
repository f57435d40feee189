"""Stand-ins of engines for unit tests: small, in memory, and strict about what they do not know."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from isa.events import AuditEntry
from isa_common import Aborted, AlreadyExists, DeadlineExceeded, IsaError, ResourceExhausted, Result, Statement
from kernel import inbox, outbox
from kernel.avro import Codec, Registry
from kernel.caller import Caller
from kernel.chain import Chain
from kernel.events import Record
from kernel.identity import Identity, Revocations

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ISSUER, AUDIENCE = "isa-users", "isa"


@dataclass(slots=True)
class OutboxRow:
    """A row of the outbox table."""

    record: Record
    position: int
    leased_until: float
    lease: str
    is_published: bool = False


@dataclass
class Database:
    """A room's database: its outbox, its inbox, and whatever else was executed. Time moves by `sleep`."""

    now: float = 1000.0
    outbox: dict[str, OutboxRow] = field(default_factory=dict)
    inbox: set[tuple[str, str]] = field(default_factory=set)
    executed: list[tuple[str, str, tuple[object, ...]]] = field(default_factory=list)
    """Organisation, SQL and parameters of what is neither outbox nor inbox, in the order of the commits."""
    affected: dict[str, int] = field(default_factory=dict)
    """Rows that a statement touches, by its SQL; 1 where nothing is said."""
    failures: list[IsaError] = field(default_factory=list)
    """Raised by the next calls, one each."""
    is_down: IsaError | None = None
    before_batch: Callable[[], Awaitable[None]] | None = None
    batches: int = 0

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def pending(self) -> list[str]:
        return [event_id for event_id, row in self.outbox.items() if not row.is_published]


class FakeSql:
    """A login at a `Database` that has the kernel's tables."""

    def __init__(self, database: Database | None = None, *, org: str = "") -> None:
        self.database = database or Database()
        self.org = org

    def acting_for(self, caller: Caller | None = None, *, org: str = "", user: str = "") -> FakeSql:
        return FakeSql(self.database, org=caller.org if caller else org)

    def _fail(self) -> None:
        if self.database.is_down:
            raise self.database.is_down
        if self.database.failures:
            raise self.database.failures.pop(0)

    async def query(self, sql: str, *params: Any, timeout: timedelta | None = None) -> list[Any]:
        self._fail()
        if sql == inbox.SEEN:
            ids, consumer = params
            return [{"event_id": event_id} for event_id in ids if (event_id, consumer) in self.database.inbox]
        if sql == outbox.MEASURE:
            return [{"pending": len(self.database.pending()), "oldest": 0.0}]
        return []

    async def execute(self, sql: str, *params: Any, timeout: timedelta | None = None) -> Result:
        self._fail()
        return self._run(self.database, Statement(sql, *params))

    async def execute_batch(self, statements: Sequence[Statement], *, timeout: timedelta | None = None) -> list[Result]:
        self._fail()
        if self.database.before_batch:
            await self.database.before_batch()
        draft = Database(
            now=self.database.now,
            outbox=copy.deepcopy(self.database.outbox),
            inbox=set(self.database.inbox),
            executed=list(self.database.executed),
            affected=self.database.affected,
        )
        results = []
        for statement in statements:
            result = self._run(draft, statement)
            if statement.expect_rows is not None and result.affected != statement.expect_rows:
                raise Aborted("Another number of rows than expected.")
            results.append(result)
        self.database.outbox, self.database.inbox = draft.outbox, draft.inbox
        self.database.executed, self.database.batches = draft.executed, self.database.batches + 1
        return results

    def _run(self, database: Database, statement: Statement) -> Result:
        arguments: Any = statement.params
        match statement.sql:
            case outbox.INSERT:
                return self._insert(database, *arguments)
            case outbox.CLAIM:
                return self._claim(database, *arguments)
            case outbox.MARK:
                rows = [database.outbox[event_id] for event_id in arguments[0] if event_id in database.outbox]
                for row in rows:
                    row.is_published = True
                return Result(len(rows))
            case outbox.YIELD:
                ids, lease = arguments
                found = (database.outbox.get(event_id) for event_id in ids)
                mine = [row for row in found if row and row.lease == lease and not row.is_published]
                for row in mine:
                    row.leased_until = database.now
                return Result(len(mine))
            case outbox.CLEAN:
                gone = [event_id for event_id, row in database.outbox.items() if row.is_published]
                for event_id in gone:
                    del database.outbox[event_id]
                return Result(len(gone))
            case inbox.ACCEPT:
                ids, consumer = arguments
                new = {(event_id, consumer) for event_id in ids} - database.inbox
                database.inbox |= new
                return Result(len(new))
        database.executed.append((self.org, statement.sql, statement.params))
        return Result(database.affected.get(statement.sql, 1))

    def _insert(
        self,
        database: Database,
        ids: list[str],
        topics: list[str],
        keys: list[str],
        payloads: list[bytes],
        headers: list[dict[str, str]],
        lease_seconds: float,
        lease: str,
    ) -> Result:
        columns = zip(ids, topics, keys, payloads, headers, strict=True)
        for event_id, topic, key, payload, header in columns:
            if event_id in database.outbox:
                raise AlreadyExists("There is such an event.")
            record = Record(event_id=event_id, topic=topic, key=key, payload=payload, headers=header)
            position = len(database.outbox) + 1
            database.outbox[event_id] = OutboxRow(record, position, database.now + lease_seconds, lease)
        return Result(len(ids))

    def _claim(self, database: Database, lease: str, seconds: float, limit: int) -> Result:
        free = [row for row in database.outbox.values() if not row.is_published and row.leased_until <= database.now]
        claimed = sorted(free, key=lambda row: row.position)[:limit]
        for row in claimed:
            row.leased_until, row.lease = database.now + seconds, lease
        rows: list[Any] = [
            {
                "position": row.position,
                "event_id": row.record.event_id,
                "topic": row.record.topic,
                "key": row.record.key,
                "payload": row.record.payload,
                "headers": row.record.headers,
            }
            for row in reversed(claimed)  # RETURNING promises no order
        ]
        return Result(len(rows), rows)


class Broker:
    """A broker: what was published, and ways to refuse."""

    def __init__(self) -> None:
        self.published: list[tuple[str, Record]] = []
        self.calls = 0
        self.is_down: Exception | None = None
        self.missing: set[str] = set()
        """Topics that do not exist."""
        self.refused: set[str] = set()
        """Ids that it does not take."""
        self.before: Callable[[], Awaitable[None]] | None = None

    async def __call__(self, topic: str, records: Sequence[Record]) -> set[str]:
        self.calls += 1
        if self.before:
            await self.before()
        if self.is_down:
            raise self.is_down
        if topic in self.missing:
            raise DeadlineExceeded("Publishing could not do this now.")
        self.published += [(topic, record) for record in records if record.event_id not in self.refused]
        return {record.event_id for record in records if record.event_id in self.refused}

    def ids(self) -> list[str]:
        return [record.event_id for _, record in self.published]


class RegistryServer:
    """A schema registry at the other end of httpx: knows what was registered, and nothing else."""

    def __init__(self) -> None:
        self.schemas: dict[int, str] = {}
        self.ids: dict[tuple[str, str], int] = {}
        self.asked: Counter[str] = Counter()
        self.is_down = False
        self.status = 200

    def register(self, subject: str, schema: str) -> int:
        key = (subject, schema)
        if key not in self.ids:
            self.ids[key] = len(self.ids) + 1
            self.schemas[self.ids[key]] = schema
        return self.ids[key]

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked[request.url.path] += 1
        if self.is_down:
            raise httpx.ConnectError("Nobody listens.")
        if self.status != 200:
            return httpx.Response(self.status, json={"error_code": self.status})
        if request.method == "POST":
            schema = json.loads(request.content)["schema"]
            found = self.ids.get((request.url.path.removeprefix("/subjects/"), schema))
            return httpx.Response(200, json={"id": found}) if found else httpx.Response(404, json={})
        known = self.schemas.get(int(request.url.path.removeprefix("/schemas/ids/")))
        return httpx.Response(200, json={"schema": known}) if known is not None else httpx.Response(404, json={})

    def registry(self) -> Registry:
        """Return a client of it that knows nothing yet."""
        transport = httpx.MockTransport(self)
        return Registry("", client=httpx.AsyncClient(transport=transport, base_url="http://registry"))

    def codec(self) -> Codec:
        return Codec(self.registry())


class FakeSlot:
    """Room for one audit record."""

    def __init__(self, spool: FakeSpool, org: str) -> None:
        self.spool, self.org = spool, org

    def write(self, entry: AuditEntry) -> None:
        self.spool.open -= 1
        self.spool.records.append((self.org, entry))

    def release(self) -> None:
        self.spool.open -= 1
        self.spool.released += 1


class FakeSpool:
    """An audit spool in memory; organisations in `full` are over their share."""

    def __init__(self) -> None:
        self.records: list[tuple[str, AuditEntry]] = []
        self.reserved: list[tuple[str, bool]] = []
        self.open = 0
        self.released = 0
        self.full: set[str] = set()

    def reserve(self, org: str, *, mutating: bool) -> FakeSlot:
        if mutating and org in self.full:
            raise ResourceExhausted("The audit is full.", retry_after=timedelta(seconds=1))
        self.reserved.append((org, mutating))
        self.open += 1
        return FakeSlot(self, org)

    def outcomes(self) -> list[str]:
        return [entry.outcome for _, entry in self.records]


class Issuer:
    """Signs tokens as `users` does, with real keys, and counts who asks for the public ones."""

    def __init__(self, rsa_key: rsa.RSAPrivateKey) -> None:
        self.rsa = rsa_key
        self.ed25519 = ed25519.Ed25519PrivateKey.generate()
        self.workload = ed25519.Ed25519PrivateKey.generate()
        self.people: dict[str, Any] = {"key-rsa": self.rsa, "key-ed": self.ed25519}
        self.fetches = 0
        self.is_down: Exception | None = None

    async def jwks(self) -> dict[str, object]:
        self.fetches += 1
        if self.is_down:
            raise self.is_down
        return {"keys": [self._public(kid, key) for kid, key in self.people.items()]}

    @staticmethod
    def _public(kid: str, key: Any) -> dict[str, object]:
        is_rsa = isinstance(key, rsa.RSAPrivateKey)
        algorithm: Any = jwt.algorithms.RSAAlgorithm if is_rsa else jwt.algorithms.OKPAlgorithm
        described = algorithm.to_jwk(key.public_key(), as_dict=True)
        return {**described, "kid": kid, "use": "sig", "alg": "RS256" if is_rsa else "EdDSA"}

    @property
    def workload_pem(self) -> str:
        return public_pem(self.workload)

    def token(
        self, *, kid: str = "key-ed", key: Any = None, alg: str = "", now: float | None = None, **changes: Any
    ) -> str:
        """Return a person's token; a claim of None is left out."""
        issued = datetime.now(UTC).timestamp() if now is None else now
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": "user-alice",
            "org": "org-a",
            "roles": ["member"],
            "sid": "session-1",
            "iat": int(issued),
            "exp": int(issued) + 600,
            "jti": "token-1",
            **changes,
        }
        key = key if key is not None else self.people[kid]
        alg = alg or ("RS256" if isinstance(key, rsa.RSAPrivateKey) else "EdDSA")
        return jwt.encode(
            {name: value for name, value in claims.items() if value is not None},
            key,
            algorithm=alg,
            headers={"kid": kid} if kid else {},
        )

    def workload_token(self, workload: str = "tasks", **changes: Any) -> str:
        """Return a token of one of our own programs."""
        claims = {"sub": workload, "wl": workload, "org": None, "roles": None, "sid": None, **changes}
        return self.token(kid="workload", key=self.workload, **claims)

    def identity(self, revocations: Revocations | None = None) -> Identity:
        return Identity(
            issuer=ISSUER,
            audience=AUDIENCE,
            workload_key=self.workload_pem,
            people_keys=self.jwks,
            revocations=revocations or Revocations(),
        )

    def chain(self, spool: FakeSpool, **changes: Any) -> Chain:
        arguments: dict[str, Any] = {"service": "tasks", "spool": spool, "identity": self.identity(), **changes}
        return Chain(**arguments)


def public_pem(key: Any) -> str:
    """Return the public half of a key as a PEM."""
    encoding, shape = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    text: bytes = key.public_key().public_bytes(encoding, shape)
    return text.decode()


def bearer(token: str, **metadata: str) -> dict[str, str]:
    """Return metadata that carry a token."""
    return {"authorization": f"Bearer {token}", **{name.replace("_", "-"): value for name, value in metadata.items()}}
