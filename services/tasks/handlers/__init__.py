"""What can come in: routes, an event, jobs; one file a noun."""

from __future__ import annotations

from services.tasks.handlers.imports import ImportDoors
from services.tasks.handlers.reminders import ReminderDoors
from services.tasks.handlers.tasks import TaskDoors
from services.tasks.handlers.upkeep import UpkeepDoors


class Handlers(TaskDoors, ReminderDoors, ImportDoors, UpkeepDoors):
    """Tasks of an organisation: what its people promised to do, and when they want to be reminded.

    - A task answers with an `ETag`. Send it back as `If-Match`, and a change, completion or deletion happens only when
      nobody was faster (else 412). Without `If-Match` the change applies to the task as it is.
    - Every POST takes an `Idempotency-Key`: the same request with the same key has one effect, and is answered with
      what was answered before and `Idempotent-Replayed: true`, for 24 hours.
    - A due or start time is a date-time with its offset, or a date. A date is due at its end, in UTC.
    """
