"""Routes of reminders, and the trigger that fires them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from fastapi import Response

from kernel import (
    Aborted,
    Caller,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    delete,
    get,
    job,
    post,
    put,
)
from services.tasks.domain.reminder import REMINDERS, Reminder, State, check_remind_at
from services.tasks.domain.task import Status
from services.tasks.handlers.doors import ATTEMPTS, Doors, IdempotencyKey, stamp_of
from services.tasks.handlers.wire import AddReminder, PutReminders, ReminderList, ReminderView
from services.tasks.repository.answers import Answer, Stamp


class TaskIsDone(FailedPrecondition):
    """Nobody is reminded of what is done."""


class ReminderDoors(Doors):
    """Set, read and withdraw reminders."""

    @get("/v1/tasks/{task_id}/reminders", permission="tasks.read", response_model=ReminderList)
    async def list_reminders(self, caller: Caller, task_id: str) -> Response:
        """List all reminders of a task, the earliest first."""
        await self.tasks.get(caller, task_id)
        return shown(await self.reminders.of_task(caller, task_id))

    @put("/v1/tasks/{task_id}/reminders", permission="tasks.write", response_model=ReminderList)
    async def put_reminders(self, caller: Caller, task_id: str, body: PutReminders) -> Response:
        """Set all of the caller's own reminders of a task. Those that wait and are not named are withdrawn."""
        wanted = sorted({self._checked(at, f"remind_at[{index}]") for index, at in enumerate(body.remind_at)})
        for attempt in range(ATTEMPTS):
            await self._open_task(caller, task_id)
            waiting = [
                each
                for each in await self.reminders.of_task(caller, task_id)
                if each.user == caller.user and each.state is State.WAITING
            ]
            kept = {each.remind_at for each in waiting} & set(wanted)
            gone = [each.id for each in waiting if each.remind_at not in kept]
            new = [self._reminder(caller, task_id, at) for at in wanted if at not in kept]
            try:
                async with self.parts.work(caller) as work:
                    self.reminders.guard(work, task_id)
                    self.reminders.withdraw(work, gone)
                    self.reminders.insert(work, new)
            except Aborted:
                if attempt == ATTEMPTS - 1:
                    raise
            else:
                break
        if new:
            self.later(self.arm(caller.org, new))
        if gone:
            self.later(self.disarm(gone))
        return shown(await self.reminders.of_task(caller, task_id))

    @post("/v1/tasks/{task_id}/reminders", permission="tasks.write", status=201, response_model=ReminderView)
    async def add_reminder(
        self, caller: Caller, task_id: str, body: AddReminder, idempotency_key: IdempotencyKey = None
    ) -> Response:
        """Add one reminder for the caller."""
        stamp = stamp_of(idempotency_key, "POST /v1/tasks/reminders", task_id, body.model_dump_json())
        return await self.once(caller, stamp, lambda: self._add(caller, task_id, body, stamp), look_first=True)

    async def _add(self, caller: Caller, task_id: str, body: AddReminder, stamp: Stamp | None) -> Answer:
        at = self._checked(body.remind_at, "remind_at")
        await self._open_task(caller, task_id)
        mine = [each for each in await self.reminders.of_task(caller, task_id) if each.user == caller.user]
        if sum(each.state is State.WAITING for each in mine) >= REMINDERS:
            raise ResourceExhausted(
                f"You have {REMINDERS} reminders of this task; withdraw one first.", field="remind_at"
            )
        new = self._reminder(caller, task_id, at)
        answer = Answer(status=201, body=ReminderView.of(new).model_dump_json().encode())
        async with self.parts.work(caller) as work:
            self.answers.keep(work, stamp, answer)
            self.reminders.guard(work, task_id)
            self.reminders.insert(work, [new])
        self.parts.audit.resource(new.id)
        self.later(self.arm(caller.org, [new]))
        return answer

    @delete("/v1/tasks/{task_id}/reminders/{reminder_id}", permission="tasks.write", status=204)
    async def withdraw_reminder(self, caller: Caller, task_id: str, reminder_id: str) -> Response:
        """Withdraw a reminder."""
        await self.tasks.get(caller, task_id)
        if reminder_id not in {each.id for each in await self.reminders.of_task(caller, task_id)}:
            raise NotFound(f"There is no reminder {reminder_id[:60]} of this task.", reminder_id=reminder_id[:60])
        async with self.parts.work(caller) as work:
            self.reminders.withdraw(work, [reminder_id])
        self.later(self.disarm([reminder_id]))
        return Response(status_code=204)

    @job("reminder-")
    async def remind(self, name: str, data: dict[str, object]) -> None:
        """Fire the reminder of that name; the scheduler may ask more than once."""
        await self.fire(Caller(org=str(data.get("org", "")), workload=self.parts.name), name)

    async def _open_task(self, caller: Caller, task_id: str) -> None:
        task = await self.tasks.get(caller, task_id)
        if task.status is Status.DONE:
            raise TaskIsDone(f"Task {task_id} is done; reopen it to be reminded of it.", task_id=task_id)

    def _checked(self, at: datetime, field: str) -> datetime:
        try:
            return check_remind_at(at, self.parts.clock())
        except ValueError as error:
            raise InvalidArgument(str(error), field=field) from None

    def _reminder(self, caller: Caller, task_id: str, at: datetime) -> Reminder:
        return Reminder(id=self.parts.new_id("reminder"), task_id=task_id, user=caller.user, remind_at=at)


def shown(reminders: Sequence[Reminder]) -> Response:
    """Return the answer that lists reminders."""
    view = ReminderList(reminders=[ReminderView.of(each) for each in reminders])
    return Response(view.model_dump_json(), media_type="application/json")
