"""Which statements may pass, by PostgreSQL's own parse tree.

This is the second line: the first is that a tenant has a database and a login of its own. It keeps out what would
outlive a transaction, reach other sessions, or run text as SQL.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pgparse

from isa_common import InvalidArgument, PermissionDenied

LONGEST = 256 * 1024
"""Characters of one statement."""
NEAR = 24

ALLOWED = frozenset(
    {
        "SelectStmt", "InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt", "ExplainStmt",
        "CreateStmt", "CreateTableAsStmt", "CreateSchemaStmt", "CreateSeqStmt", "CreateEnumStmt", "CreateDomainStmt",
        "CompositeTypeStmt", "IndexStmt", "ViewStmt", "RefreshMatViewStmt", "CommentStmt",
        "AlterTableStmt", "AlterSeqStmt", "AlterEnumStmt", "AlterDomainStmt", "RenameStmt", "DropStmt", "TruncateStmt",
    }
)  # fmt: skip
"""What works on data and tables, and ends with its transaction or is meant to stay."""

REFUSED_FUNCTIONS = frozenset(
    {
        "set_config", "pg_notify", "ts_stat", "ts_rewrite", "pg_export_snapshot", "pg_stat_file", "pg_reload_conf",
        "pg_cancel_backend", "pg_terminate_backend", "inet_server_addr", "inet_client_addr",
        "query_to_xml", "query_to_xmlschema", "query_to_xml_and_xmlschema", "cursor_to_xml", "cursor_to_xmlschema",
        "table_to_xml", "table_to_xmlschema", "table_to_xml_and_xmlschema", "schema_to_xml", "schema_to_xmlschema",
        "schema_to_xml_and_xmlschema", "database_to_xml", "database_to_xmlschema", "database_to_xml_and_xmlschema",
    }
)  # fmt: skip
REFUSED_PREFIXES = (
    "lo_", "dblink", "pg_read_", "pg_ls_", "pg_advisory_lock", "pg_advisory_unlock", "pg_try_advisory_lock",
    "pg_logical_", "pg_replication_", "pg_create_", "pg_drop_", "pg_backup_", "pg_wal_", "pg_log_",
)  # fmt: skip
REFUSED_TABLES = frozenset(
    {
        "pg_database", "pg_roles", "pg_user", "pg_group", "pg_authid", "pg_auth_members", "pg_shadow", "pg_tablespace",
        "pg_stat_activity", "pg_stat_database", "pg_stat_replication", "pg_db_role_setting", "pg_largeobject",
        "pg_file_settings", "pg_hba_file_rules", "pg_stat_ssl", "pg_stat_gssapi", "pg_shdescription", "pg_shdepend",
    }
)  # fmt: skip
"""What shows more than the caller's own database."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a statement's text says of it."""

    is_read: bool
    makes_room: bool
    """Only deletes: may be run by a tenant whose share is full."""
    tables: frozenset[str]


@lru_cache(maxsize=4096)
def check(sql: str) -> Facts:
    """Refuse what may not pass, and return what is known of the rest. Looked at once a text."""
    if len(sql) > LONGEST:
        raise InvalidArgument(f"A statement may have {LONGEST} characters; send data as parameters.", field="sql")
    if "\0" in sql:
        raise InvalidArgument("A statement may not hold NUL characters.", field="sql")
    try:
        statements = pgparse.parse(sql)
    except pgparse.PGQueryError as error:
        position = int(error.position)
        raise syntax_error(sql, error.message, position) from None
    if len(statements) != 1:
        count = "no statement" if not statements else f"{len(statements)} statements"
        raise InvalidArgument(
            f"The text holds {count}: send one; ExecuteBatch runs several in one transaction.", field="sql"
        )
    ((kind, tree),) = statements[0]["stmt"].items()
    if kind not in ALLOWED:
        raise PermissionDenied(
            f"{_spoken(kind)} may not be run here: only what works on data and tables is.", field="sql"
        )
    is_read = kind in ("SelectStmt", "ExplainStmt")
    tables = set()
    for name, node in _nodes(tree):
        match name:
            case "FuncCall":
                _check_function(str(node["funcname"][-1]["String"]["sval"]).lower())
            case "RangeVar" | "relation" | "view" | "rel":
                tables.add(str(node.get("relname", "")))
                if node.get("relname") in REFUSED_TABLES:
                    raise PermissionDenied(f"{node['relname']} may not be read here.", field="sql")
                if node.get("relpersistence") == "t":
                    raise PermissionDenied("Temporary tables are not kept between calls.", field="sql")
            case "query" if kind == "ExplainStmt" and not ALLOWED.issuperset(node):
                raise PermissionDenied("Only statements that may be run may be explained.", field="sql")
            case "InsertStmt" | "UpdateStmt" | "DeleteStmt" | "MergeStmt" | "intoClause":
                is_read = False
    return Facts(is_read, kind in ("DeleteStmt", "TruncateStmt", "DropStmt"), frozenset(tables - {""}))


def syntax_error(sql: str, message: str, position: int) -> InvalidArgument:
    """The error for a text that PostgreSQL cannot read, with the place and what stands there."""
    near = sql[max(position - 1, 0) :][:NEAR].strip() if position else ""
    line = sql.count("\n", 0, max(position - 1, 0)) + 1
    where = f" (line {line}, near {near!r})" if near else ""
    sentence = message[:1].upper() + message[1:]
    return InvalidArgument(f"{sentence}{where}.", field="sql", position=position, near=near, sqlstate="42601")


def _check_function(name: str) -> None:
    if name in REFUSED_FUNCTIONS or name.startswith(REFUSED_PREFIXES):
        raise PermissionDenied(f"The function {name} may not be called here.", field="sql")


def _nodes(tree: Any) -> Iterator[tuple[str, Any]]:
    """Every named node below, each once."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            for name, child in node.items():
                if isinstance(child, dict):
                    yield name, child
                    waiting.append(child)
                elif isinstance(child, list):
                    waiting.extend(child)
        elif isinstance(node, list):
            waiting.extend(node)


def _spoken(kind: str) -> str:
    """`VariableSetStmt` as people say it: VARIABLE SET."""
    words = "".join(f" {letter}" if letter.isupper() else letter for letter in kind.removesuffix("Stmt"))
    return words.strip().upper()
