"""What comes from other rooms and from the clock."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from isa.events import Event, OrgMemberRemoved
from kernel import Caller, IsaError, Statement, job, log, on
from services.tasks.domain.reminder import Reminder
from services.tasks.domain.task import Task
from services.tasks.handlers.doors import Doors
from services.tasks.handlers.tasks import updated

SWEEP_AT_MOST = 500
LATE = timedelta(seconds=10)
"""How long the scheduler may take before the sweep fires a reminder itself."""


class UpkeepDoors(Doors):
    """Follow the organisation's members, and mend what was lost."""

    @on(OrgMemberRemoved)
    async def unassign(self, caller: Caller, event: OrgMemberRemoved) -> None:
        """Leave the tasks of a removed member without an assignee, and end their reminders."""
        tasks: list[Task] = []

        async def effects(_events: list[Event]) -> list[Statement]:
            tasks[:] = await self.tasks.assigned_to(caller, event.member_id)
            statements = [self.reminders.withdraw_of_user(event.member_id)]
            if tasks:
                statements.append(self.tasks.unassign(tasks, at=self.parts.clock()))
            return statements

        def emit(_events: list[Event]) -> list[Event]:
            return [updated(replace(task, version=task.version + 1), ["assignee"]) for task in tasks]

        await self.parts.inbox.apply(caller, [event], effects, emit=emit)

    @job("sweep-reminders", schedule="*/15 * * * * *")
    async def sweep_reminders(self, _data: dict[str, object]) -> None:
        """Fire what the scheduler forgot, and arm what it never heard of."""
        now = self.parts.clock()
        unarmed: dict[str, list[Reminder]] = {}
        for each in await self.reminders.missing(late_since=now - LATE, limit=SWEEP_AT_MOST):
            if each.remind_at > now:
                waiting = Reminder(id=each.id, task_id="", user="", remind_at=each.remind_at)
                unarmed.setdefault(each.org, []).append(waiting)
                continue
            try:
                await self.fire(Caller(org=each.org, workload=self.parts.name), each.id)
            except IsaError as error:
                log.warning("reminder.unfired", reminder_id=each.id, reason=error.message)
        for org, waiting_there in unarmed.items():
            await self.arm(org, waiting_there)

    @job("clean-answers", schedule="0 45 3 * * *")
    async def clean_answers(self, _data: dict[str, object]) -> None:
        """Forget old answers to requests with an Idempotency-Key."""
        log.info("answers.cleaned", deleted=await self.answers.clean(self.parts.clock()))
