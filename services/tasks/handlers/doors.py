"""What all doors of the room share: answers that happen once, ETags, and what is done after the answer."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Annotated, Any

from fastapi import Header, Response
from pydantic import AfterValidator

from isa.events import ReminderTriggered
from kernel import (
    Aborted,
    AlreadyExists,
    Caller,
    FailedPrecondition,
    InvalidArgument,
    IsaError,
    NotFound,
    Parts,
    PreconditionFailed,
    log,
)
from services.tasks.domain.reminder import Reminder, State
from services.tasks.domain.task import Task
from services.tasks.repository.answers import Answer, Answers, Stamp
from services.tasks.repository.imports import Imports
from services.tasks.repository.reminders import Reminders
from services.tasks.repository.tasks import Tasks

ATTEMPTS = 5
"""How often a change without If-Match is tried when others are faster."""
_ETAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e]*"', re.ASCII)

_KEY = re.compile(r"[\x21-\x7e]{1,255}", re.ASCII)


def _checked_key(key: str | None) -> str | None:
    if key is not None and _KEY.fullmatch(key) is None:
        raise ValueError("An Idempotency-Key has 1 to 255 visible ASCII characters, such as a UUID.")
    return key


IdempotencyKey = Annotated[
    str | None,
    AfterValidator(_checked_key),
    Header(
        description="Of your choice, new for each new request. A repeated request with the same key happens once.",
    ),
]
IfMatch = Annotated[
    str | None,
    Header(description="ETag that the task must still have. Without it, the change applies to what is there."),
]


class Doors:
    """Base of the room's handlers."""

    def __init__(
        self,
        parts: Parts,
        *,
        tasks: Tasks,
        reminders: Reminders,
        answers: Answers,
        imports: Imports,
        page_size: int,
        import_chunk: int,
    ) -> None:
        self.parts = parts
        self.tasks = tasks
        self.reminders = reminders
        self.answers = answers
        self.imports = imports
        self.page_size = page_size
        self.import_chunk = import_chunk
        self.created = parts.metrics.counter("isa_tasks_created", "Tasks created.", ["source"])
        self.completed = parts.metrics.counter("isa_tasks_completed", "Tasks completed.")
        self.fired = parts.metrics.counter("isa_tasks_reminders_fired", "Reminders that came due.")
        self.imported = parts.metrics.counter("isa_tasks_imported_lines", "Lines of imported files.", ["outcome"])
        self.reading = asyncio.Semaphore(1)
        """One file is read at a time, so that files leave the processor to everybody else."""
        self._later: set[asyncio.Task[None]] = set()

    async def stop(self) -> None:
        """Finish what was left for after the answer."""
        await asyncio.gather(*self._later, return_exceptions=True)

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something after the answer that the sweep would otherwise do."""
        task = asyncio.create_task(work)
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def once(
        self, caller: Caller, stamp: Stamp | None, effect: Callable[[], Awaitable[Answer]], *, look_first: bool = False
    ) -> Response:
        """Answer with what `effect` answers, or with what it answered before under the same key.

        The key is a unique row that commits with the effect; so, unless `look_first`, it costs no query of its own.
        """
        if stamp is None:
            return reply(await effect())
        if look_first and (kept := await self.answers.find(caller, stamp)):
            return reply(kept, is_replayed=True)
        try:
            return reply(await effect())
        except (AlreadyExists, Aborted, FailedPrecondition, NotFound):
            if kept := await self.answers.find(caller, stamp):
                return reply(kept, is_replayed=True)
            raise

    async def arm(self, org: str, reminders: Sequence[Reminder]) -> None:
        """Ask the scheduler to trigger reminders. What it does not hear, the sweep asks again."""
        armed = []
        try:
            for each in reminders:
                await self.parts.jobs.schedule(each.id, each.remind_at, data={"org": org})
                armed.append((org, each.id))
        except IsaError as error:
            log.warning("reminder.unarmed", reminders=len(reminders) - len(armed), reason=error.message)
        try:
            await self.reminders.armed(armed)
        except IsaError as error:
            log.warning("reminder.arming_unnoted", reminders=len(armed), reason=error.message)

    async def disarm(self, reminder_ids: Sequence[str]) -> None:
        """Ask the scheduler to forget reminders. One that it triggers nevertheless finds its row gone or cancelled."""
        try:
            for reminder_id in reminder_ids:
                await self.parts.jobs.delete(reminder_id)
        except IsaError as error:
            log.info("reminder.job_left", reminders=len(reminder_ids), reason=error.message)

    async def fire(self, caller: Caller, reminder_id: str) -> None:
        """Fire a reminder that is due, once, whoever triggers it and how often."""
        now = self.parts.clock()
        try:
            reminder = await self.reminders.get(caller, reminder_id)
        except NotFound:
            return  # withdrawn, or its task deleted
        if not reminder.is_due(now):
            if reminder.state is State.WAITING:
                await self.arm(caller.org, [reminder])
            return
        fired = reminder.fire(at=now)
        try:
            async with self.parts.work(caller) as work:
                self.reminders.fire(work, fired)
                work.emit(
                    ReminderTriggered(
                        aggregate_id=fired.id,
                        aggregate_version=fired.version,
                        user_id=fired.user,
                        task_id=fired.task_id,
                        remind_at=fired.remind_at,
                    )
                )
        except Aborted:
            return  # another trigger was faster, or its task was just completed
        self.fired.inc()
        log.info("reminder.fired", reminder_id=fired.id, task_id=fired.task_id)


def reply(answer: Answer, *, is_replayed: bool = False) -> Response:
    """Return an answer as HTTP has it."""
    headers = {**answer.headers, "idempotent-replayed": "true"} if is_replayed else answer.headers
    media_type = "application/json" if answer.body else None
    return Response(answer.body, answer.status, headers, media_type)


def stamp_of(key: str | None, route: str, *parts: str | bytes) -> Stamp | None:
    """Return what a key stands for: a route with its parameters and its body."""
    if key is None:
        return None
    digest = hashlib.sha256(route.encode())
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big") + data)
    return Stamp(key, digest.hexdigest())


def etag_of(task: Task) -> str:
    """Return the ETag of a task: its version."""
    return f'"{task.version}"'


def has_etag(header: str, task: Task, *, field: str) -> bool:
    """Tell whether an If-Match or If-None-Match names the task as it is. W/ makes no difference: versions are exact."""
    if header.strip() == "*":
        return True
    tags = [tag.strip() for tag in header.split(",")]
    if not all(_ETAG.fullmatch(tag) for tag in tags):
        raise InvalidArgument(
            f'{field} must hold the ETag of an answer, quotes included, such as "3", or *.', field=field
        )
    return etag_of(task) in {tag.removeprefix("W/") for tag in tags}


def check_match(if_match: str | None, task: Task) -> None:
    """Refuse a change of a task that is no longer what the caller read."""
    if if_match is not None and not has_etag(if_match, task, field="If-Match"):
        raise PreconditionFailed(
            f"The task has changed: its ETag is {etag_of(task)} now. Read it again and repeat the change with that.",
            field="If-Match",
            current=etag_of(task),
        )
