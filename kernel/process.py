"""The life of a room's process: start in the order of what needs what, serve, drain, stop.

listen -> sidecar -> own token -> the room's own start -> started (daprd delivers) -> control topic read -> ready
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from types import ModuleType
from typing import Any, TypeVar

import uvicorn
from fastapi import FastAPI

from isa.events import AuditEntry, AuditRecorded, ControlChanged, Event
from isa_common import Code, DeadlineExceeded, Isa, IsaError, Unauthenticated, Unavailable
from kernel import lag, limits, telemetry
from kernel.audit import AuditSpool
from kernel.avro import Codec, Registry
from kernel.call import CORRELATION
from kernel.caller import Caller
from kernel.chain import PLATFORM, Chain
from kernel.control import Control
from kernel.dapr.bindings import Bindings
from kernel.dapr.invoke import Invoke
from kernel.dapr.jobs import Jobs
from kernel.dapr.pubsub import AUDIT, EVENTS, PubSub, component_of
from kernel.dapr.secrets import Secrets
from kernel.dapr.sidecar import Sidecar
from kernel.dapr.state import State
from kernel.delivery import Delivered, Delivery, Status, callbacks, check, jobs_of
from kernel.doors import job
from kernel.events import stamp, to_record
from kernel.http import Health, http_app, operations
from kernel.identity import Identity, Revocations, WorkloadToken
from kernel.outbox import Outbox
from kernel.parts import Parts, new_id, utc_now
from kernel.rpc import callbacks as rpc_callbacks
from kernel.rpc.server import Adapter, RpcServer
from kernel.rpc.usage import Usage
from kernel.settings import KafkaLogin, ProcessSettings
from kernel.shares import Limits, Shares

T = TypeVar("T")
START_WITHIN = 120.0
TRY_AGAIN_AFTER = 0.25
JOBS_AGAIN_AFTER = 5.0


async def until_there(what: str, attempt: Callable[[], Awaitable[T]]) -> T:
    """Return what an attempt gives, trying again while what it needs is not there yet."""
    loop = asyncio.get_running_loop()
    until = loop.time() + START_WITHIN
    while True:
        try:
            return await attempt()
        except (Unavailable, DeadlineExceeded, Unauthenticated) as error:
            if loop.time() > until:
                raise Unavailable(f"{what} is not there after {START_WITHIN:.0f} s: {error.message}") from error
            telemetry.log.debug("start.waiting", what=what, reason=error.message)
            await asyncio.sleep(TRY_AGAIN_AFTER)


class Server(uvicorn.Server):
    """uvicorn, whose signals are ours."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        """Leave signals alone."""
        yield


class Process:
    """One room, from its settings to its end."""

    def __init__(self, settings: ProcessSettings, module: ModuleType) -> None:
        self.settings = settings
        self.name = module.__name__.split(".")[-2]
        self.health = Health()
        self._module = module
        self._tasks: list[asyncio.Task[None]] = []
        self._sidecar = Sidecar(
            host=settings.dapr_host,
            grpc_port=settings.dapr_grpc_port,
            http_port=settings.dapr_http_port,
            token=settings.dapr_api_token,
        )
        self._registry = Registry(settings.registry_url)
        self._codec = Codec(self._registry)
        self._pubsub = PubSub(self._sidecar)
        self._kafka_login = KafkaLogin()
        self._revocations = Revocations()
        self._spool = AuditSpool(settings.spool_dir, service=settings.app_id, publish=self._publish_audit)
        telemetry.SPOOL.set_function(lambda: self._spool.held_bytes)
        self._chain = Chain(service=settings.app_id, spool=self._spool, default_timeout=settings.call_timeout)
        self._revocations.changed = self._chain.recheck
        self._token = WorkloadToken(self._issue)
        self._secret = ""
        self._invoke = Invoke(
            base_url=f"http://{settings.dapr_host}:{settings.dapr_http_port}",
            api_token=settings.dapr_api_token,
            token=self._token,
        )
        self._isa = Isa(
            f"{settings.dapr_host}:{settings.dapr_grpc_port}",
            token=self._token,
            sidecar=True,
            sidecar_token=settings.dapr_api_token,
            metadata=telemetry.outgoing,
        )
        self._outbox = Outbox(self._isa.sql, self._pubsub.publish)
        self.parts = Parts(
            name=self.name,
            sql=self._isa.sql,
            logs=self._isa.logs,
            outbox=self._outbox,
            codec=self._codec,
            jobs=Jobs(self._sidecar),
            state=State(self._sidecar),
            secrets=Secrets(self._sidecar, on_read=self._audit_secret),
            invoke=self._invoke,
            bindings=Bindings(self._sidecar),
            shares=Shares(
                Limits(
                    calls=settings.share_calls,
                    streams=settings.share_streams,
                    rate=settings.share_rate,
                    burst=settings.share_burst,
                    bytes=settings.share_bytes,
                )
            ),
        )
        self._delivery = Delivery(settings.app_id, self._codec, self._pubsub.publish)
        self._control = Control(
            settings.app_id,
            self._revocations,
            self._publish_control,
            kept=settings.spool_dir / "control.known",
        )
        self._delivery.add("control.changed", self._control.note)
        room_settings = module.Settings(_env_prefix=f"{self.name.upper()}_")
        self._room = module.create_app(room_settings, self.parts)
        self._inner = self._room.implementation if isinstance(self._room, Adapter) else self._room
        self._rpc: RpcServer | None = None

    # What goes out beside the outbox: audit records and markers have no business row.

    async def _publish(self, event: Event) -> bool:
        stamped = stamp(event, Caller(org=event.org_id), utc_now())
        record = await to_record(stamped, self._codec, source=self.settings.app_id)
        return not await self._pubsub.publish(event.TOPIC, [record])

    async def _publish_control(self, event: ControlChanged) -> bool:
        return await self._publish(event)

    async def _publish_audit(self, org: str, entries: list[AuditEntry]) -> None:
        if not await self._publish(AuditRecorded(aggregate_id=org, org_id=org, entries=entries)):
            raise Unavailable("The broker did not take the audit records.")

    def _audit_secret(self, name: str, outcome: str) -> None:
        telemetry.log.info("secret.read", secret_name=name, outcome=outcome)
        self._spool.reserve(PLATFORM, mutating=False).write(
            AuditEntry(
                record_id=new_id("record"),
                at=utc_now(),
                user_id="",
                workload=self.settings.app_id,
                service=self.settings.app_id,
                action="secret.read",
                resources=[name],
                outcome=outcome if outcome == "OK" else Code.UNKNOWN.name,
                trace_id="",
                correlation_id=CORRELATION.get(),
            )
        )

    async def _issue(self) -> tuple[str, datetime]:
        """Return a token of our own: `users` signs its own, everybody else asks `users` with a secret."""
        if own := getattr(self._module, "workload_tokens", None):
            token, expires = await own(self.parts)
            return token, expires
        # Kept while it is taken: each read is audited, and one says as much as one a try while `users` is away.
        self._secret = self._secret or await self.parts.secrets.get(f"workload-client-{self.settings.app_id}")
        body = {"grant_type": "client_credentials", "client_id": self.settings.app_id, "client_secret": self._secret}
        try:
            answer = await self._invoke.post("users", "/oauth/token", json=body, anonymous=True)
        except Unauthenticated:
            self._secret = ""  # it was rotated: read it anew
            raise
        return answer["access_token"], datetime.now(UTC) + timedelta(seconds=answer["expires_in"])

    async def _people_keys(self) -> dict[str, object]:
        keys: dict[str, object] = await self._invoke.get("users", "/.well-known/jwks.json", anonymous=True)
        return keys

    async def _deliver(self, topic: str, entries: Sequence[rpc_callbacks.Delivered]) -> list[Status]:
        """Take a batch that came over the gRPC app channel."""
        batch = [Delivered(entry_id=item.entry_id, value=item.payload, headers=item.headers) for item in entries]
        await self._delivery.deliver(topic, batch)
        return [record.status for record in batch]

    # The life of the process.

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then drain."""
        stopping = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
        async with self._serving():
            start = asyncio.create_task(self._start())
            stop = asyncio.create_task(stopping.wait())
            await asyncio.wait({start, stop}, return_when=asyncio.FIRST_COMPLETED)
            if start.done():
                start.result()
                await stop
            start.cancel()
            telemetry.log.info("draining")
            self.health.is_ready = self.health.is_started = False
        await self._stop()

    @contextlib.asynccontextmanager
    async def _serving(self) -> AsyncIterator[None]:
        settings = self.settings
        check(self._room)
        if isinstance(self._room, Adapter):
            self._chain.errors, self._chain.shares = self._room.errors, self.parts.shares
            self.parts.shares.stored = getattr(self._inner, "stored", None)
            app, port = FastAPI(openapi_url=None), settings.metrics_port
            self._rpc = RpcServer(
                f"{settings.app_host}:{settings.app_port}",
                chain=self._chain,
                app_api_token=settings.app_api_token,
                deliver=self._deliver,
            )
            self._rpc.add(self._room)
            self._rpc.add(Adapter(service="isa.usage.v1.Usage", implementation=Usage(self.parts.shares)))
        else:
            app = http_app(self._room, title=self.name, chain=self._chain, max_body=settings.max_body)
            self._delivery.register(self._room)
            callbacks(app, jobs_of(self._room, self), self._delivery, token=settings.app_api_token)
            port = settings.app_port
        operations(app, self.health, token=settings.app_api_token)
        config = uvicorn.Config(
            app,
            host=settings.app_host,
            port=port,
            log_config=None,
            lifespan="off",
            access_log=False,
            timeout_graceful_shutdown=int(settings.drain.total_seconds()),
            timeout_keep_alive=75,
        )
        http = Server(config)
        serving = asyncio.create_task(http.serve())
        if self._rpc:
            await self._rpc.start()
        try:
            yield
        finally:
            if self._rpc:
                await self._rpc.stop(settings.drain)
            http.should_exit = True
            await serving

    async def _start(self) -> None:
        await self._sidecar.wait(at_most=START_WITHIN)
        await self._spool.start()
        self._control.remember()
        key = await until_there("The secret store", lambda: self.parts.secrets.get("workload-signing-public"))
        self._chain.identity = Identity(
            issuer=self.settings.issuer,
            audience=self.settings.audience,
            workload_key=key,
            people_keys=self._people_keys,
            revocations=self._revocations,
        )
        is_core = not isinstance(self._room, Adapter)
        if is_core:
            await until_there("The service users", self._token)
            await until_there("The database", lambda: self.parts.sql.query("SELECT 1"))
            await self._outbox.start()
        if hasattr(self._inner, "start"):
            await self._inner.start()
        self.health.is_started = True
        if is_core:
            self._tasks.append(asyncio.create_task(self._schedule_jobs()))
        app_id, brokers = self.settings.app_id, self.settings.kafka_brokers
        for component, group in ((EVENTS, app_id), (AUDIT, f"{app_id}-audit")):  # as the components say
            if topics := sorted(topic for topic in self._delivery.handlers if component_of(topic) == component):
                watch = lag.watch(brokers, group, topics, login=self._kafka_login, secret=self.parts.secrets.get)
                self._tasks.append(asyncio.create_task(watch))
        await self._control.read_to_end()
        self.health.is_ready = True
        if self._rpc:
            await self._rpc.ready()
        gc.freeze()  # what was made until now stays: looking through it again and again would hold calls up
        telemetry.log.info("ready", port=self.settings.app_port)

    @job("kernel-cleanup", schedule="0 30 3 * * *")
    async def clean(self, _data: dict[str, object]) -> None:
        """Delete outbox and inbox rows that nobody needs any more."""
        deleted = {"outbox": await self._outbox.clean(), "inbox": await self.parts.inbox.clean()}
        telemetry.log.info("cleaned", **deleted)

    async def _schedule_jobs(self) -> None:
        """Register what runs by the clock; the scheduler may come later than we do."""
        waiting = {door.name: door.schedule for door, _ in jobs_of(self._room, self) if door.schedule}
        while waiting:
            for name, schedule in list(waiting.items()):
                try:
                    await self.parts.jobs.schedule(name, schedule=schedule)
                    del waiting[name]
                except IsaError as error:
                    telemetry.log.warning("job.unscheduled", job=name, reason=error.message)
                    await asyncio.sleep(JOBS_AGAIN_AFTER)

    async def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if hasattr(self._inner, "stop"):
            await self._inner.stop()
        await self._outbox.stop()
        await self._spool.stop()
        await self._invoke.close()
        await self._isa.close()
        await self._registry.close()
        await self._sidecar.close()
        telemetry.log.info("stopped")


async def serve(package: str) -> None:
    """Run the room of a package, such as `services.tasks`, until it is told to stop."""
    settings = ProcessSettings()  # type: ignore[call-arg]  # from the environment
    telemetry.configure(
        settings.app_id,
        level=settings.log_level,
        otlp_endpoint=settings.otlp_endpoint,
        sampling=settings.trace_sampling,
    )
    limits.measure()
    await Process(settings, importlib.import_module(f"{package}.app")).run()
