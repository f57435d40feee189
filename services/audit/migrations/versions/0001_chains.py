"""Chains of records that the room itself cannot change."""

from __future__ import annotations

from alembic import op

from kernel import tables

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

PLATFORM = "org_id = 'platform'"


def upgrade() -> None:
    """Create the chains, and take from everyone the right to change a record."""
    statements = [
        *tables.create("audit"),
        """
        CREATE TABLE audit_chains (
            org_id text PRIMARY KEY,
            seq bigint NOT NULL,
            hash text NOT NULL,
            shipped_seq bigint NOT NULL DEFAULT 0
        )
        """,
        "CREATE INDEX audit_chains_to_ship ON audit_chains (org_id) WHERE shipped_seq < seq",
        *tables.tenant_table("audit", "audit_chains", privileges="SELECT, INSERT, UPDATE"),
        """
        CREATE TABLE audit_records (
            org_id text NOT NULL,
            seq bigint NOT NULL,
            record_id text NOT NULL,
            kind text NOT NULL,
            at timestamptz NOT NULL,
            user_id text NOT NULL,
            workload text NOT NULL,
            service text NOT NULL,
            action text NOT NULL,
            resources jsonb NOT NULL,
            outcome text NOT NULL,
            trace_id text NOT NULL,
            correlation_id text NOT NULL,
            detail jsonb NOT NULL,
            prev_hash text NOT NULL,
            hash text NOT NULL,
            recorded_at timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (org_id, seq),
            UNIQUE (org_id, record_id)
        )
        """,
        "CREATE INDEX audit_records_at ON audit_records (org_id, at)",
        "CREATE INDEX audit_records_user ON audit_records (org_id, user_id, seq)",
        "CREATE INDEX audit_records_action ON audit_records (org_id, action, seq)",
        "CREATE INDEX audit_records_correlation ON audit_records (org_id, correlation_id)",
        "CREATE INDEX audit_records_resources ON audit_records USING gin (resources jsonb_path_ops)",
        *tables.tenant_table("audit", "audit_records", privileges="SELECT, INSERT"),
        # The system login keeps the chain of no organisation, and sees which chains have lines to ship.
        "GRANT SELECT, INSERT, UPDATE ON audit_chains TO audit_system",
        "GRANT SELECT, INSERT ON audit_records TO audit_system",
        f"CREATE POLICY platform ON audit_chains TO audit_system USING ({PLATFORM}) WITH CHECK ({PLATFORM})",
        f"CREATE POLICY platform ON audit_records TO audit_system USING ({PLATFORM}) WITH CHECK ({PLATFORM})",
        "CREATE POLICY to_ship ON audit_chains FOR SELECT TO audit_system USING (true)",
        # The owner verifies, and nothing else.
        "CREATE POLICY verify ON audit_chains FOR SELECT TO audit_owner USING (true)",
        "CREATE POLICY verify ON audit_records FOR SELECT TO audit_owner USING (true)",
        """
        CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'audit records are never changed' USING ERRCODE = 'insufficient_privilege';
        END $$
        """,
        """
        CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON audit_records
        FOR EACH ROW EXECUTE FUNCTION refuse_change()
        """,
        """
        CREATE TRIGGER never_emptied BEFORE TRUNCATE ON audit_records
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()
        """,
        """
        CREATE TRIGGER never_emptied BEFORE DELETE OR TRUNCATE ON audit_chains
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()
        """,
        """
        CREATE FUNCTION refuse_back() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'a chain never goes back' USING ERRCODE = 'insufficient_privilege';
        END $$
        """,
        """
        CREATE TRIGGER forward_only BEFORE UPDATE ON audit_chains FOR EACH ROW
        WHEN (NEW.seq < OLD.seq OR NEW.shipped_seq < OLD.shipped_seq OR NEW.org_id <> OLD.org_id)
        EXECUTE FUNCTION refuse_back()
        """,
    ]
    for statement in statements:
        op.execute(statement)


def downgrade() -> None:
    """Nothing to go back to: the audit is never dropped by a migration."""
