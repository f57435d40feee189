"""Counts by day and topic, and a row a task."""

from __future__ import annotations

from alembic import op

from kernel import tables

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    statements = [
        *tables.create("analytics"),
        """
        CREATE TABLE daily (
            org_id text NOT NULL,
            day date NOT NULL,
            topic text NOT NULL,
            number bigint NOT NULL,
            last_at timestamptz NOT NULL,
            PRIMARY KEY (org_id, day, topic)
        )
        """,
        *tables.tenant_table("analytics", "daily"),
        """
        CREATE TABLE tasks (
            org_id text NOT NULL,
            task_id text NOT NULL,
            version bigint NOT NULL,
            is_done boolean NOT NULL,
            is_deleted boolean NOT NULL,
            created_at timestamptz,
            due_version bigint NOT NULL,
            due_at timestamptz,
            completed_version bigint NOT NULL,
            completed_at timestamptz,
            PRIMARY KEY (org_id, task_id)
        )
        """,
        *tables.tenant_table("analytics", "tasks"),
    ]
    for statement in statements:
        op.execute(statement)


def downgrade() -> None:
    """Refuse: migrations only go forward."""
    raise NotImplementedError("Migrations only go forward: write the next one.")
