"""Who is plugged into whom in tasks."""

from __future__ import annotations

from kernel import Parts, RoomSettings
from services.tasks.handlers import Handlers
from services.tasks.repository.answers import Answers
from services.tasks.repository.imports import Imports
from services.tasks.repository.reminders import Reminders
from services.tasks.repository.tasks import Tasks


class Settings(RoomSettings):
    """Settings of tasks; environment names begin with TASKS_."""

    page_size: int = 50
    """How many tasks a page of a list has when the caller does not say; at most 200."""
    import_chunk: int = 100
    """How many imported tasks commit together."""


def create_app(settings: Settings, parts: Parts) -> Handlers:
    """Build the room."""
    return Handlers(
        parts,
        tasks=Tasks(parts.sql),
        reminders=Reminders(parts.sql),
        answers=Answers(parts.sql),
        imports=Imports(parts.sql),
        page_size=settings.page_size,
        import_chunk=settings.import_chunk,
    )
