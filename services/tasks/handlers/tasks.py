"""Routes of tasks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import Header, Query, Response

from isa.events import Event, TaskCompleted, TaskCreated, TaskDeleted, TaskUpdated
from kernel import Aborted, Caller, InvalidArgument, NotFound, Work, delete, get, patch, post
from services.tasks.domain.task import Task
from services.tasks.handlers.doors import (
    ATTEMPTS,
    Doors,
    IdempotencyKey,
    IfMatch,
    check_match,
    etag_of,
    has_etag,
    reply,
    stamp_of,
)
from services.tasks.handlers.wire import ChangeTask, CreateTask, ListTasks, TaskList, TaskView, wire_names
from services.tasks.repository.answers import Answer, Stamp

Change = Callable[[Task], tuple[Task, Event | None]]
"""The changed task and the event that tells of it; no event when nothing changed."""


class TaskDoors(Doors):
    """Create, read, change, complete, reopen and delete tasks."""

    @post("/v1/tasks", permission="tasks.write", status=201, response_model=TaskView)
    async def create_task(self, caller: Caller, body: CreateTask, idempotency_key: IdempotencyKey = None) -> Response:
        """Create a task."""
        stamp = stamp_of(idempotency_key, "POST /v1/tasks", body.model_dump_json()) if idempotency_key else None

        async def effect() -> Answer:
            await self._check_assignee(caller, body.assignee)
            task = body.task(self.parts.new_id("task"), user=caller.user, now=self.parts.clock())
            answer = answer_with(task, status=201, location=True)
            async with self.parts.work(caller) as work:
                self.answers.keep(work, stamp, answer)
                self.tasks.insert(work, task)
                work.emit(created(task, source="api"))
            self.parts.audit.resource(task.id)
            self.created.labels("api").inc()
            return answer

        return await self.once(caller, stamp, effect)

    @get("/v1/tasks", permission="tasks.read", response_model=TaskList)
    async def list_tasks(self, caller: Caller, query: Annotated[ListTasks, Query()]) -> Response:
        """List tasks, a page at a time."""
        page = await self.tasks.page(
            caller, query.filter(), sort=query.sort, limit=query.limit or self.page_size, cursor=query.cursor
        )
        view = TaskList(tasks=[TaskView.of(task) for task in page.tasks], next_cursor=page.next_cursor)
        return Response(view.model_dump_json(), media_type="application/json")

    @get("/v1/tasks/{task_id}", permission="tasks.read", response_model=TaskView)
    async def get_task(
        self, caller: Caller, task_id: str, if_none_match: Annotated[str | None, Header()] = None
    ) -> Response:
        """Read a task; 304 when `If-None-Match` has its ETag."""
        task = await self.tasks.get(caller, task_id)
        if if_none_match is not None and has_etag(if_none_match, task, field="If-None-Match"):
            return Response(status_code=304, headers={"etag": etag_of(task)})
        return reply(answer_with(task))

    @patch("/v1/tasks/{task_id}", permission="tasks.write", response_model=TaskView)
    async def update_task(self, caller: Caller, task_id: str, body: ChangeTask, if_match: IfMatch = None) -> Response:
        """Change some fields of a task."""
        changes = body.changes()
        await self._check_assignee(caller, changes.get("assignee"))

        def change(task: Task) -> tuple[Task, Event | None]:
            changed, names = task.change(at=self.parts.clock(), **changes)
            return changed, updated(changed, wire_names(names)) if names else None

        return reply((await self._change(caller, task_id, change, if_match=if_match))[0])

    @post("/v1/tasks/{task_id}/complete", permission="tasks.write", response_model=TaskView)
    async def complete_task(
        self, caller: Caller, task_id: str, if_match: IfMatch = None, idempotency_key: IdempotencyKey = None
    ) -> Response:
        """Complete a task, or refuse when it already is. Its reminders are cancelled."""
        stamp = stamp_of(idempotency_key, "POST /v1/tasks/complete", task_id, if_match or "")

        def change(task: Task) -> tuple[Task, Event | None]:
            done = task.complete(at=self.parts.clock())
            return done, completed(done)

        async def effect() -> Answer:
            answer, work = await self._change(
                caller,
                task_id,
                change,
                if_match=if_match,
                stamp=stamp,
                also=lambda work: self.reminders.cancel(work, task_id),
            )
            self.completed.inc()
            if cancelled := [row["id"] for row in work.results[-1].rows]:
                self.later(self.disarm(cancelled))
            return answer

        return await self.once(caller, stamp, effect)

    @post("/v1/tasks/{task_id}/reopen", permission="tasks.write", response_model=TaskView)
    async def reopen_task(
        self, caller: Caller, task_id: str, if_match: IfMatch = None, idempotency_key: IdempotencyKey = None
    ) -> Response:
        """Reopen a done task, or refuse when it is open. Its reminders wait again, if their time is to come."""
        stamp = stamp_of(idempotency_key, "POST /v1/tasks/reopen", task_id, if_match or "")
        now = self.parts.clock()

        def change(task: Task) -> tuple[Task, Event | None]:
            reopened = task.reopen(at=now)
            return reopened, updated(reopened, ["status"])

        async def effect() -> Answer:
            answer, work = await self._change(
                caller,
                task_id,
                change,
                if_match=if_match,
                stamp=stamp,
                also=lambda work: self.reminders.revive(work, task_id, now=now),
            )
            if work.results[-1].rows:
                revived = {row["id"] for row in work.results[-1].rows}
                known = await self.reminders.of_task(caller, task_id)
                self.later(self.arm(caller.org, [each for each in known if each.id in revived]))
            return answer

        return await self.once(caller, stamp, effect)

    @delete("/v1/tasks/{task_id}", permission="tasks.write", status=204)
    async def delete_task(self, caller: Caller, task_id: str, if_match: IfMatch = None) -> Response:
        """Delete a task and its reminders."""
        for attempt in range(ATTEMPTS):
            task = await self.tasks.get(caller, task_id)
            check_match(if_match, task)
            waiting = [each.id for each in await self.reminders.of_task(caller, task_id)]
            try:
                async with self.parts.work(caller) as work:
                    self.tasks.delete(work, task)
                    work.emit(
                        TaskDeleted(aggregate_id=task.id, aggregate_version=task.version + 1, status=task.status.value)
                    )
            except Aborted:
                if attempt == ATTEMPTS - 1:
                    raise
            else:
                if waiting:
                    self.later(self.disarm(waiting))
                break
        return Response(status_code=204)

    async def _check_assignee(self, caller: Caller, assignee: str | None) -> None:
        """Refuse an assignee who is no member; only who assigns to somebody else pays for the look."""
        if assignee is None or assignee == caller.user:
            return
        try:
            await self.parts.invoke.get("users", f"/v1/users/{assignee}", caller=caller)
        except NotFound:
            raise InvalidArgument(
                f"There is no user {assignee} in your organisation; give the id of a member.", field="assignee"
            ) from None

    async def _change(
        self,
        caller: Caller,
        task_id: str,
        change: Change,
        *,
        if_match: str | None,
        stamp: Stamp | None = None,
        also: Callable[[Work], None] = lambda work: None,
    ) -> tuple[Answer, Work]:
        """Read, change and save one task; again when somebody was faster and the caller did not insist on a version."""
        for attempt in range(ATTEMPTS):
            task = await self.tasks.get(caller, task_id)
            check_match(if_match, task)
            changed, event = change(task)
            answer = answer_with(changed)
            try:
                async with self.parts.work(caller) as work:
                    if event is not None:
                        self.answers.keep(work, stamp, answer)
                        self.tasks.save(work, changed)
                        also(work)
                        work.emit(event)
            except Aborted:
                if attempt == ATTEMPTS - 1:
                    raise
            else:
                break
        return answer, work


def answer_with(task: Task, *, status: int = 200, location: bool = False) -> Answer:
    """Return the answer that shows a task."""
    headers = {"etag": etag_of(task)}
    if location:
        headers["location"] = f"/v1/tasks/{task.id}"
    return Answer(status=status, headers=headers, body=TaskView.of(task).model_dump_json().encode())


def created(task: Task, *, source: str) -> TaskCreated:
    """Return the event of a task's first version."""
    return TaskCreated(
        aggregate_id=task.id,
        aggregate_version=1,
        due_at=task.due.at if task.due else None,
        priority=task.priority,
        source=source,
        assignee_id=task.assignee,
    )


def updated(task: Task, changed: list[str]) -> TaskUpdated:
    """Return the event of a change."""
    return TaskUpdated(
        aggregate_id=task.id,
        aggregate_version=task.version,
        changed=changed,
        status=task.status.value,
        due_at=task.due.at if task.due else None,
        assignee_id=task.assignee,
    )


def completed(task: Task) -> TaskCompleted:
    """Return the event of a completion."""
    return TaskCompleted(
        aggregate_id=task.id,
        aggregate_version=task.version,
        created_at=task.created_at,
        due_at=task.due.at if task.due else None,
    )
