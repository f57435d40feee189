"""The tables that every room's database has, and the grants of its two logins.

`<room>_app` is bound to the organisation that the adapter sets per transaction (`isa.org`); `<room>_system` is bound to
none and holds what belongs to no organisation. Migrations run what these functions return, statement by statement.
"""

from __future__ import annotations


def create(room: str) -> list[str]:
    """Return the statements of a room's first migration: outbox, inbox and the right to use the schema."""
    app, system = f"{room}_app", f"{room}_system"
    return [
        f"GRANT USAGE ON SCHEMA public TO {app}, {system}",
        """
        CREATE TABLE outbox (
            event_id text PRIMARY KEY,
            topic text NOT NULL,
            key text NOT NULL,
            payload bytea NOT NULL,
            headers jsonb NOT NULL,
            position bigint GENERATED ALWAYS AS IDENTITY,
            created_at timestamptz NOT NULL DEFAULT now(),
            leased_until timestamptz NOT NULL,
            lease text NOT NULL,
            published_at timestamptz
        )
        """,
        "CREATE INDEX outbox_pending ON outbox (position) WHERE published_at IS NULL",
        "CREATE INDEX outbox_published ON outbox (published_at) WHERE published_at IS NOT NULL",
        """
        CREATE TABLE inbox (
            event_id text NOT NULL,
            consumer text NOT NULL,
            seen_at timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (event_id, consumer)
        )
        """,
        "CREATE INDEX inbox_seen ON inbox (seen_at)",
        f"GRANT INSERT ON outbox TO {app}",
        f"GRANT SELECT, INSERT ON inbox TO {app}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON outbox, inbox TO {system}",
        f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {app}, {system}",
    ]


def tenant_table(room: str, table: str, *, privileges: str = "SELECT, INSERT, UPDATE, DELETE") -> list[str]:
    """Return the statements that bind a table to the organisation of the transaction; it must have `org_id`."""
    mine = "org_id = current_setting('isa.org', true)"
    return [
        f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
        f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY",
        f"CREATE POLICY own_organisation ON {table} USING ({mine}) WITH CHECK ({mine})",
        f"GRANT {privileges} ON {table} TO {room}_app",
    ]


def system_table(room: str, table: str, *, privileges: str = "SELECT, INSERT, UPDATE, DELETE") -> list[str]:
    """Return the statements that give a table of no organisation to the room's system login."""
    return [f"GRANT {privileges} ON {table} TO {room}_system"]
