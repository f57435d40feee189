"""The route that takes whole files: todo.txt and iCalendar."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from fastapi import Request, Response

from kernel import Aborted, AlreadyExists, Caller, InvalidArgument, log, post
from services.tasks.domain.ical import read_calendar
from services.tasks.domain.intake import Line, Outcome
from services.tasks.domain.reminder import Reminder
from services.tasks.domain.task import Status, Task
from services.tasks.domain.todotxt import read_todo_txt
from services.tasks.handlers.doors import ATTEMPTS, Doors, IdempotencyKey, stamp_of
from services.tasks.handlers.tasks import completed, created
from services.tasks.handlers.wire import ImportReport, LineView
from services.tasks.repository.answers import Answer

LARGEST = 5 << 20
"""Bytes of a file."""
FORMATS = {"text/plain": ("todo.txt", read_todo_txt), "text/calendar": ("ical", read_calendar)}
BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in FORMATS},
    }
}


class ImportDoors(Doors):
    """Take tasks from files."""

    @post(
        "/v1/tasks/import",
        permission="tasks.write",
        max_body=LARGEST,
        response_model=ImportReport,
        response_model_exclude_none=True,
        openapi_extra=BODY,
    )
    async def import_tasks(self, caller: Caller, request: Request, idempotency_key: IdempotencyKey = None) -> Response:
        """Import a todo.txt file (text/plain) or the VTODOs of a calendar (text/calendar), up to 5 MiB.

        Every line is reported: taken, already there, refused (with the reason) or skipped. A refused line spoils no
        other. What was taken is recognised when the file is sent again, so an import that was cut off can be repeated;
        a line that was changed since is a new one.
        """
        source, read = _format_of(request.headers.get("content-type", ""))
        data = await request.body()
        now = self.parts.clock()
        try:
            async with self.reading:
                lines = await asyncio.to_thread(read, data, now=now)
        except ValueError as error:
            raise InvalidArgument(str(error), field="body") from None
        stamp = stamp_of(idempotency_key, "POST /v1/tasks/import", source, data)

        async def effect() -> Answer:
            done = await self._take(caller, lines, source=source, now=now)
            counts = Counter(line.outcome for line in done)
            for outcome in Outcome:
                self.imported.labels(outcome.value).inc(counts[outcome])
            log.info("tasks.imported", source=source, **{outcome.value: counts[outcome] for outcome in Outcome})
            report = ImportReport(
                **{outcome.value: counts[outcome] for outcome in Outcome}, lines=[LineView.of(line) for line in done]
            )
            answer = Answer(status=200, body=report.model_dump_json(exclude_none=True).encode())
            if stamp is not None:
                async with self.parts.work(caller) as work:
                    self.answers.keep(work, stamp, answer)
            return answer

        return await self.once(caller, stamp, effect, look_first=True)

    async def _take(self, caller: Caller, lines: list[Line], *, source: str, now: datetime) -> list[Line]:
        """Write what is offered, some at a time, and say of each line what became of it."""
        result = {line.number: line for line in lines}
        offered = [line for line in lines if line.draft is not None]
        for start in range(0, len(offered), self.import_chunk):
            chunk = offered[start : start + self.import_chunk]
            for attempt in range(ATTEMPTS):
                try:
                    taken = await self._take_chunk(caller, chunk, source=source, now=now)
                except (AlreadyExists, Aborted):  # the same lines, in another import at the same time
                    if attempt == ATTEMPTS - 1:
                        raise
                else:
                    result |= {line.number: line for line in taken}
                    break
        return [result[line.number] for line in lines]

    async def _take_chunk(self, caller: Caller, chunk: list[Line], *, source: str, now: datetime) -> list[Line]:
        offered = [(line, line.draft) for line in chunk if line.draft is not None]
        known = await self.imports.find(caller, [draft.source_key for _, draft in offered])
        done, new = [], []
        for line, draft in offered:
            if draft.source_key in known:
                task_id, is_there = known[draft.source_key]
                done.append(
                    line.already_there(
                        "" if is_there else "It was imported before, and deleted since.", task_id=task_id
                    )
                )
            else:
                task = draft.task(self.parts.new_id("task"), user=caller.user, now=now)
                if task.created_at == now:  # those without a date keep the order of their file
                    task = replace(task, created_at=now + timedelta(microseconds=line.number))
                new.append((draft, task))
                done.append(line.taken(task.id))
        if not new:
            return done
        reminders = [self._imported_reminder(caller, task, at) for draft, task in new for at in draft.reminders]
        async with self.parts.work(caller) as work:
            self.imports.insert(work, [(draft.source_key, task.id) for draft, task in new])
            self.tasks.insert_many(work, [task for _, task in new])
            self.reminders.insert(work, reminders)
            for _, task in new:
                work.emit(created(task, source=source))
                if task.status is Status.DONE:
                    work.emit(completed(task))
        self.created.labels(source).inc(len(new))
        self.completed.inc(sum(task.status is Status.DONE for _, task in new))
        if reminders:
            self.later(self.arm(caller.org, reminders))
        return done

    def _imported_reminder(self, caller: Caller, task: Task, at: datetime) -> Reminder:
        return Reminder(id=self.parts.new_id("reminder"), task_id=task.id, user=caller.user, remind_at=at)


def _format_of(content_type: str) -> tuple[str, Any]:
    kind, _, parameters = content_type.partition(";")
    found = FORMATS.get(kind.strip().lower())
    if found is None:
        raise InvalidArgument(
            "The Content-Type must be text/plain (todo.txt) or text/calendar (iCalendar).", field="Content-Type"
        )
    charset = parameters.lower().partition("charset=")[2].strip(" \"';")
    if charset not in ("", "utf-8", "utf8", "us-ascii"):
        raise InvalidArgument("The charset must be utf-8; save the file as UTF-8.", field="Content-Type")
    return found
