"""Which statements may pass, by PostgreSQL's own parse tree.

This is the second line: the first is that a tenant has a database and a login of its own. It keeps out what would
outlive a transaction, reach other sessions, or run text as SQL.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import pgparse

from isa_common import InvalidArgument, PermissionDenied

LONGEST = 64 * 1024
"""Characters of one statement: reading it costs up to 4 ms a kilobyte."""
QUICK = 2048
"""Characters of a statement that is read on the spot; a longer one must not hold the loop."""
REMEMBERED = 4096
"""Characters of a statement that is looked at once; a longer one is looked at each time, to bound what is held."""
NEAR = 24

ALLOWED = frozenset(
    {
        "SelectStmt", "InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt", "ExplainStmt",
        "CreateStmt", "CreateTableAsStmt", "CreateSchemaStmt", "CreateSeqStmt", "CreateEnumStmt", "CreateDomainStmt",
        "CompositeTypeStmt", "IndexStmt", "ViewStmt", "RefreshMatViewStmt", "CommentStmt",
        "AlterTableStmt", "AlterSeqStmt", "AlterEnumStmt", "AlterDomainStmt", "AlterObjectSchemaStmt", "RenameStmt",
        "DropStmt", "TruncateStmt", "CreatePolicyStmt", "AlterPolicyStmt", "CreateStatsStmt", "CreateFunctionStmt",
        "CreateRangeStmt", "VacuumStmt",
    }
)  # fmt: skip
"""What works on data and tables, and ends with its transaction or is meant to stay."""

SAVEPOINTS = frozenset({"TRANS_STMT_SAVEPOINT", "TRANS_STMT_RELEASE", "TRANS_STMT_ROLLBACK_TO"})
"""What may be run of transaction control, inside a transaction of the caller's own."""

FUNCTION_BODY = frozenset({"SelectStmt", "InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt", "ReturnStmt"})
"""Statements of an SQL function."""

WRITES = frozenset({"InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt", "intoClause"})

NOT_OURS = frozenset(
    {
        "OBJECT_DATABASE", "OBJECT_ROLE", "OBJECT_TABLESPACE", "OBJECT_EXTENSION", "OBJECT_LANGUAGE", "OBJECT_FDW",
        "OBJECT_FOREIGN_SERVER", "OBJECT_EVENT_TRIGGER", "OBJECT_PUBLICATION", "OBJECT_SUBSCRIPTION",
        "OBJECT_LARGEOBJECT", "OBJECT_PARAMETER_ACL", "OBJECT_ACCESS_METHOD",
    }
)  # fmt: skip
"""Kinds of objects that belong to the server, not to a tenant."""

REFUSED_FUNCTIONS = frozenset(
    {
        "set_config", "pg_notify", "ts_stat", "ts_rewrite", "pg_export_snapshot", "pg_stat_file", "pg_reload_conf",
        "pg_cancel_backend", "pg_terminate_backend", "inet_server_addr", "inet_client_addr",
        "query_to_xml", "query_to_xmlschema", "query_to_xml_and_xmlschema", "cursor_to_xml", "cursor_to_xmlschema",
        "table_to_xml", "table_to_xmlschema", "table_to_xml_and_xmlschema", "schema_to_xml", "schema_to_xmlschema",
        "schema_to_xml_and_xmlschema", "database_to_xml", "database_to_xmlschema", "database_to_xml_and_xmlschema",
        "inet_server_port", "inet_client_port", "loread", "lowrite", "txid_status", "pg_xact_status",
        "pg_lock_status", "pg_prepared_xact", "pg_show_all_settings", "pg_show_all_file_settings", "pg_hba_file_rules",
    }
)  # fmt: skip
REFUSED_PREFIXES = (
    "lo_", "dblink", "pg_read_", "pg_ls_", "pg_advisory_", "pg_try_advisory_", "pg_logical_", "pg_replication_",
    "pg_create_", "pg_drop_", "pg_backup_", "pg_wal_", "pg_log_", "pg_stat_get_", "pg_show_replication_",
)  # fmt: skip
REFUSED_TABLES = frozenset(
    {
        "pg_database", "pg_roles", "pg_user", "pg_group", "pg_authid", "pg_auth_members", "pg_shadow", "pg_tablespace",
        "pg_stat_activity", "pg_stat_database", "pg_stat_replication", "pg_db_role_setting", "pg_largeobject",
        "pg_file_settings", "pg_hba_file_rules", "pg_shdescription", "pg_shdepend", "pg_shseclabel", "pg_locks",
        "pg_settings", "pg_prepared_xacts", "pg_replication_slots", "pg_replication_origin", "pg_largeobject_metadata",
        "pg_subscription", "pg_parameter_acl", "pg_user_mappings", "pg_ident_file_mappings", "pg_shmem_allocations",
    }
)  # fmt: skip
REFUSED_TABLE_PREFIXES = ("pg_stat_", "pg_statio_")
SEEN_STATISTICS = frozenset(
    {
        f"pg_{kind}_{scope}_{what}"
        for kind in ("stat", "statio")
        for scope in ("user", "all")
        for what in ("tables", "indexes", "sequences", "functions")
    }
)
"""What shows more than the caller's own database, and the statistics that do not."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a statement's text says of it."""

    is_read: bool
    makes_room: bool
    """Only deletes: may be run by a tenant whose share is full."""
    is_savepoint: bool
    tables: frozenset[str]


def check(sql: str, *, in_transaction: bool = False) -> Facts:
    """Refuse what may not pass, and return what is known of the rest. Looked at once a text."""
    facts = _known(sql) if len(sql) <= REMEMBERED else _facts(sql)
    if facts.is_savepoint and not in_transaction:
        raise PermissionDenied("Savepoints belong to a transaction: run this in Transact or ExecuteInTx.", field="sql")
    return facts


async def look(sql: str, *, in_transaction: bool = False) -> Facts:
    """Check a statement beside the loop when that may take long; one such at a time."""
    if len(sql) <= QUICK:
        return check(sql, in_transaction=in_transaction)
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_READER, partial(check, sql, in_transaction=in_transaction))


def _facts(sql: str) -> Facts:
    if len(sql) > LONGEST:
        raise InvalidArgument(f"A statement may have {LONGEST} characters; send data as parameters.", field="sql")
    if "\0" in sql:
        raise InvalidArgument("A statement may not hold NUL characters.", field="sql")
    statements = _parsed(sql)
    if len(statements) != 1:
        count = "no statement" if not statements else f"{len(statements)} statements"
        raise InvalidArgument(
            f"The text holds {count}: send one; ExecuteBatch runs several in one transaction.", field="sql"
        )
    ((kind, tree),) = statements[0]["stmt"].items()
    if kind == "TransactionStmt" and tree.get("kind") in SAVEPOINTS:
        return Facts(is_read=False, makes_room=True, is_savepoint=True, tables=frozenset())
    if kind not in ALLOWED or (kind == "VacuumStmt" and (tree.get("is_vacuumcmd") or not tree.get("rels"))):
        raise PermissionDenied(
            f"{_spoken(kind)} may not be run here: only what works on data and tables is.", field="sql"
        )
    if NOT_OURS & {tree.get(field) for field in ("removeType", "renameType", "objtype", "objectType")}:
        raise PermissionDenied("This belongs to the server, and to no tenant.", field="sql")
    if kind == "CreateFunctionStmt":
        _check_body(tree)
    names, tables = _look(tree)
    is_read = kind in ("SelectStmt", "ExplainStmt") and not names & WRITES
    return Facts(is_read, kind in ("DeleteStmt", "TruncateStmt", "DropStmt"), is_savepoint=False, tables=tables)


_known = lru_cache(maxsize=4096)(_facts)
_READER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="statements")


def _parsed(sql: str) -> list[Any]:
    try:
        statements: list[Any] = pgparse.parse(sql)
    except pgparse.PGQueryError as error:
        raise syntax_error(sql, error.message, int(error.position)) from None
    except RecursionError:
        raise InvalidArgument("The statement is nested too deeply.", field="sql") from None
    return statements


def _look(tree: Any) -> tuple[set[str], frozenset[str]]:
    """Refuse what may stand nowhere in a statement; return the kinds of its nodes and the tables that it names."""
    names, tables = set(), set()
    for name, node in _nodes(tree):
        names.add(name)
        match name:
            case "FuncCall":
                _check_function(str(node["funcname"][-1]["String"]["sval"]).lower())
            case "RangeVar" | "relation" | "view" | "rel":
                check_table(str(node.get("relname", "")))
                tables.add(str(node.get("relname", "")))
                if node.get("relpersistence") == "t":
                    raise PermissionDenied("Temporary tables are not kept between calls.", field="sql")
            case _ if name.endswith("Stmt") and name[0].isupper() and name not in ALLOWED and name not in FUNCTION_BODY:
                raise PermissionDenied(f"{_spoken(name)} may not be run here, nor in another statement.", field="sql")
    return names, frozenset(tables - {""})


def check_table(name: str) -> None:
    """Refuse what shows more than the caller's own database."""
    if name in REFUSED_TABLES or (name.startswith(REFUSED_TABLE_PREFIXES) and name not in SEEN_STATISTICS):
        raise PermissionDenied(f"{name} may not be read here.", field="sql")


def _check_body(tree: dict[str, Any]) -> None:
    """Functions are SQL, and their text is looked at as a statement is; what can run text would outrun the rest."""
    options = {each["DefElem"]["defname"]: each["DefElem"] for each in tree.get("options", [])}
    language = options.get("language", {}).get("arg", {}).get("String", {}).get("sval", "sql")
    if language.lower() != "sql" or tree.get("is_procedure") or "set" in options or "support" in options:
        raise PermissionDenied("Only functions in SQL may be made here, without settings of their own.", field="sql")
    for text in options.get("as", {}).get("arg", {}).get("List", {}).get("items", []):
        for statement in _parsed(text["String"]["sval"]):
            ((kind, body),) = statement["stmt"].items()
            if kind not in FUNCTION_BODY:
                raise PermissionDenied(f"{_spoken(kind)} may not stand in a function here.", field="sql")
            _look(body)


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
