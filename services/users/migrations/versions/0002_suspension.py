"""Since when a member is suspended."""

from __future__ import annotations

from alembic import op

revision = "0002_suspension"
down_revision = "0001_people"


def upgrade() -> None:
    """Add the column; versions that do not know it see members as active."""
    op.execute("ALTER TABLE members ADD COLUMN suspended_at timestamptz")


def downgrade() -> None:
    """Refuse."""
    raise NotImplementedError("Migrations only go forward: write the next one.")
