"""Tasks, reminders, kept answers, and which imported lines are taken.

There is no index for text: PostgreSQL uses none under row-level security, as its operators are not leakproof; a search
reads the organisation's own rows in the order of the list.
"""

from __future__ import annotations

from alembic import op

from kernel import tables

revision = "0001_tasks"
down_revision = None

ROOM = "tasks"
MINE = "org_id text COLLATE \"C\" NOT NULL DEFAULT current_setting('isa.org')"
"""The organisation of the transaction, so that no statement has to name it."""

STATEMENTS = [
    f"""
    CREATE TABLE tasks (
        {MINE},
        id text COLLATE "C" NOT NULL,
        title text NOT NULL,
        notes text NOT NULL,
        status text NOT NULL CHECK (status IN ('open', 'done')),
        priority text,
        due_at timestamptz,
        due_is_day boolean NOT NULL,
        start_at timestamptz,
        start_is_day boolean NOT NULL,
        tags text[] NOT NULL,
        projects text[] NOT NULL,
        contexts text[] NOT NULL,
        assignee text,
        recurrence text,
        created_by text NOT NULL,
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL,
        done_at timestamptz,
        version bigint NOT NULL,
        PRIMARY KEY (org_id, id)
    )
    """,
    "CREATE INDEX tasks_by_creation ON tasks (org_id, created_at, id)",
    "CREATE INDEX tasks_by_due ON tasks (org_id, due_at, id) WHERE status = 'open'",
    "CREATE INDEX tasks_by_assignee ON tasks (org_id, assignee) WHERE assignee IS NOT NULL",
    *tables.tenant_table(ROOM, "tasks"),
    f"""
    CREATE TABLE reminders (
        {MINE},
        id text COLLATE "C" NOT NULL,
        task_id text COLLATE "C" NOT NULL,
        user_id text NOT NULL,
        remind_at timestamptz NOT NULL,
        state text NOT NULL CHECK (state IN ('waiting', 'fired', 'cancelled')),
        fired_at timestamptz,
        armed_at timestamptz,
        version bigint NOT NULL,
        PRIMARY KEY (org_id, id),
        FOREIGN KEY (org_id, task_id) REFERENCES tasks ON DELETE CASCADE
    )
    """,
    "CREATE INDEX reminders_of_task ON reminders (org_id, task_id)",
    "CREATE INDEX reminders_waiting ON reminders (remind_at) WHERE state = 'waiting'",
    "CREATE INDEX reminders_unarmed ON reminders (remind_at) WHERE state = 'waiting' AND armed_at IS NULL",
    *tables.tenant_table(ROOM, "reminders"),
    # The sweep looks over all organisations, at ids and times only.
    f"CREATE POLICY sweep ON reminders TO {ROOM}_system USING (true)",
    f"GRANT SELECT, UPDATE (armed_at) ON reminders TO {ROOM}_system",
    f"""
    CREATE TABLE answers (
        {MINE},
        user_id text NOT NULL,
        key text NOT NULL,
        fingerprint text NOT NULL,
        status integer NOT NULL,
        headers jsonb NOT NULL,
        body bytea NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (org_id, user_id, key)
    )
    """,
    "CREATE INDEX answers_by_age ON answers (created_at)",
    *tables.tenant_table(ROOM, "answers", privileges="SELECT, INSERT"),
    f"CREATE POLICY clean ON answers TO {ROOM}_system USING (true)",
    f"GRANT SELECT (org_id, user_id, key, created_at), DELETE ON answers TO {ROOM}_system",
    f"""
    CREATE TABLE imported (
        {MINE},
        source_key text COLLATE "C" NOT NULL,
        task_id text NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (org_id, source_key)
    )
    """,
    *tables.tenant_table(ROOM, "imported", privileges="SELECT, INSERT"),
]


def upgrade() -> None:
    """Create the tables."""
    for statement in [*tables.create(ROOM), *STATEMENTS]:
        op.execute(statement)


def downgrade() -> None:
    """Refuse: migrations only go forward."""
    raise NotImplementedError("Migrations only go forward: write the next one.")
