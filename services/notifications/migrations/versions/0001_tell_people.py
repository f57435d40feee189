"""Inboxes, deliveries, digests, and what is known of tasks and people, by id."""

from __future__ import annotations

from alembic import op

from kernel import tables

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ROOM = "notifications"
TABLES = [
    """
    CREATE TABLE notifications (
        id text PRIMARY KEY,
        org_id text NOT NULL,
        user_id text NOT NULL,
        kind text NOT NULL,
        subject_id text NOT NULL,
        actor_id text NOT NULL,
        data jsonb NOT NULL,
        at timestamptz NOT NULL,
        read_at timestamptz
    )
    """,
    "CREATE INDEX notifications_inbox ON notifications (org_id, user_id, at DESC, id DESC)",
    "CREATE INDEX notifications_unread ON notifications (org_id, user_id) WHERE read_at IS NULL",
    "CREATE INDEX notifications_at ON notifications (at)",
    """
    CREATE TABLE deliveries (
        id text PRIMARY KEY,
        org_id text NOT NULL,
        notification_id text NOT NULL,
        user_id text NOT NULL,
        kind text NOT NULL,
        subject_id text NOT NULL,
        cause_id text NOT NULL,
        correlation_id text NOT NULL,
        data jsonb NOT NULL,
        state text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'sent', 'skipped', 'failed')),
        attempts integer NOT NULL DEFAULT 0,
        reason text NOT NULL DEFAULT '',
        created_at timestamptz NOT NULL,
        next_try timestamptz NOT NULL,
        ended_at timestamptz
    )
    """,
    "CREATE INDEX deliveries_due ON deliveries (next_try) WHERE state = 'pending'",
    "CREATE INDEX deliveries_of ON deliveries (notification_id)",
    "CREATE INDEX deliveries_ended ON deliveries (ended_at)",
    """
    CREATE TABLE watches (
        org_id text NOT NULL,
        task_id text NOT NULL,
        maker_id text,
        version bigint NOT NULL,
        is_open boolean NOT NULL,
        due_version bigint NOT NULL,
        due_at timestamptz,
        assignee_version bigint NOT NULL,
        assignee_id text,
        untold jsonb NOT NULL,
        revision bigint NOT NULL,
        changed_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (org_id, task_id)
    )
    """,
    "CREATE INDEX watches_due ON watches (org_id, coalesce(assignee_id, maker_id), due_at) WHERE is_open",
    "CREATE INDEX watches_closed ON watches (changed_at) WHERE NOT is_open",
    """
    CREATE TABLE people (
        org_id text NOT NULL,
        user_id text NOT NULL,
        role text NOT NULL,
        left_at timestamptz,
        PRIMARY KEY (org_id, user_id)
    )
    """,
    """
    CREATE TABLE organisations (
        org_id text PRIMARY KEY,
        since timestamptz NOT NULL,
        digest_day date
    )
    """,
    """
    CREATE TABLE digests (
        org_id text NOT NULL,
        user_id text NOT NULL,
        day date NOT NULL,
        run integer NOT NULL,
        PRIMARY KEY (org_id, user_id, day)
    )
    """,
]
OF_THE_ROOM = {
    "notifications": "SELECT, DELETE",
    "deliveries": "SELECT, UPDATE, DELETE",
    "watches": "SELECT, DELETE",
    "organisations": "SELECT",
    "digests": "SELECT, DELETE",
}
"""What the jobs see of every organisation: e-mails that are due, digests that are missing, and what is old."""


def upgrade() -> None:
    """Create the tables."""
    statements = [*tables.create(ROOM), *TABLES]
    for table in ("notifications", "deliveries", "watches", "people", "organisations", "digests"):
        statements += tables.tenant_table(ROOM, table)
    for table, privileges in OF_THE_ROOM.items():
        statements.append(f"CREATE POLICY any_organisation ON {table} TO {ROOM}_system USING (true)")
        statements += tables.system_table(ROOM, table, privileges=privileges)
    for statement in statements:
        op.execute(statement)


def downgrade() -> None:
    """Refuse: migrations only go forward."""
    raise NotImplementedError("Migrations only go forward: write the next one.")
