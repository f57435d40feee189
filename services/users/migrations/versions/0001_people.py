"""Organisations, members, and what proves who they are."""

from __future__ import annotations

from alembic import op

from kernel import tables

revision = "0001_people"
down_revision = None

ROOM = "users"
TABLES = [
    """
    CREATE TABLE orgs (
        org_id text PRIMARY KEY,
        name text NOT NULL,
        version bigint NOT NULL,
        created_at timestamptz NOT NULL
    )
    """,
    """
    CREATE TABLE members (
        user_id text PRIMARY KEY,
        org_id text NOT NULL REFERENCES orgs,
        name text NOT NULL,
        email text NOT NULL,
        role text NOT NULL CHECK (role IN ('owner', 'admin', 'member', 'viewer')),
        version bigint NOT NULL,
        created_at timestamptz NOT NULL
    )
    """,
    "CREATE INDEX members_of_org ON members (org_id, user_id)",
    """
    CREATE TABLE logins (
        user_id text PRIMARY KEY REFERENCES members ON DELETE CASCADE,
        org_id text NOT NULL,
        email_key text NOT NULL CONSTRAINT one_user_an_email UNIQUE,
        password_hash text NOT NULL,
        changed_at timestamptz NOT NULL
    )
    """,
    """
    CREATE TABLE invitations (
        id text PRIMARY KEY,
        org_id text NOT NULL REFERENCES orgs,
        email text NOT NULL,
        email_key text NOT NULL,
        role text NOT NULL CHECK (role IN ('owner', 'admin', 'member', 'viewer')),
        token_hash text NOT NULL UNIQUE,
        invited_by text NOT NULL,
        created_at timestamptz NOT NULL,
        expires_at timestamptz NOT NULL,
        CONSTRAINT one_invitation_an_email UNIQUE (org_id, email_key)
    )
    """,
    "CREATE INDEX invitations_ending ON invitations (expires_at)",
    """
    CREATE TABLE sessions (
        id text PRIMARY KEY,
        org_id text NOT NULL,
        user_id text NOT NULL REFERENCES members ON DELETE CASCADE,
        scopes text[] NOT NULL,
        device text NOT NULL,
        version bigint NOT NULL,
        created_at timestamptz NOT NULL,
        used_at timestamptz NOT NULL,
        expires_at timestamptz NOT NULL,
        revoked_at timestamptz
    )
    """,
    "CREATE INDEX sessions_of_user ON sessions (user_id, used_at DESC)",
    "CREATE INDEX sessions_ending ON sessions (expires_at)",
    """
    CREATE TABLE refresh_tokens (
        token_hash text PRIMARY KEY,
        org_id text NOT NULL,
        session_id text NOT NULL REFERENCES sessions ON DELETE CASCADE,
        used_at timestamptz
    )
    """,
    "CREATE INDEX refresh_tokens_of_session ON refresh_tokens (session_id)",
    """
    CREATE TABLE credentials (
        id text PRIMARY KEY,
        org_id text NOT NULL REFERENCES orgs,
        user_id text NOT NULL REFERENCES members ON DELETE CASCADE,
        name text NOT NULL,
        scopes text[] NOT NULL,
        secret_hash text NOT NULL,
        version bigint NOT NULL,
        created_at timestamptz NOT NULL,
        used_at timestamptz,
        revoked_at timestamptz
    )
    """,
    "CREATE INDEX credentials_of_org ON credentials (org_id, created_at)",
    """
    CREATE TABLE password_resets (
        token_hash text PRIMARY KEY,
        org_id text NOT NULL,
        user_id text NOT NULL REFERENCES members ON DELETE CASCADE,
        expires_at timestamptz NOT NULL
    )
    """,
    "CREATE INDEX password_resets_of_user ON password_resets (user_id)",
    """
    CREATE TABLE throttles (
        subject text PRIMARY KEY,
        attempts integer NOT NULL,
        ends_at timestamptz NOT NULL
    )
    """,
    """
    CREATE TABLE signing_keys (
        kid text PRIMARY KEY,
        generation bigint NOT NULL UNIQUE,
        algorithm text NOT NULL,
        public_jwk jsonb NOT NULL,
        sealed_private bytea NOT NULL,
        active_from timestamptz NOT NULL,
        expires_at timestamptz
    )
    """,
]
OF_AN_ORGANISATION = (
    "orgs",
    "members",
    "logins",
    "invitations",
    "sessions",
    "refresh_tokens",
    "credentials",
    "password_resets",
)
FOUND_BEFORE_THE_ORGANISATION_IS_KNOWN = {
    "logins": "SELECT",
    "invitations": "SELECT, DELETE",
    "sessions": "SELECT, DELETE",
    "refresh_tokens": "SELECT, DELETE",
    "credentials": "SELECT",
    "password_resets": "SELECT, DELETE",
}
"""What a log-in looks up by e-mail or token, and the cleanup deletes, before or without an organisation."""
OF_NO_ORGANISATION = ("throttles", "signing_keys")


def upgrade() -> None:
    """Make the tables."""
    statements = [*tables.create(ROOM), *TABLES]
    for table in OF_AN_ORGANISATION:
        statements += tables.tenant_table(ROOM, table)
    for table, privileges in FOUND_BEFORE_THE_ORGANISATION_IS_KNOWN.items():
        statements.append(f"CREATE POLICY any_organisation ON {table} TO {ROOM}_system USING (true)")
        statements += tables.system_table(ROOM, table, privileges=privileges)
    for table in OF_NO_ORGANISATION:
        statements += tables.system_table(ROOM, table)
    for statement in statements:
        op.execute(statement)


def downgrade() -> None:
    """Refuse."""
    raise NotImplementedError("Migrations only go forward: write the next one.")
