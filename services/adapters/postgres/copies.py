"""COPY statements, composed from names and values: never from a caller's text that was not read first."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pgparse

from isa.sql.v1 import sql_pb2
from isa_common import InvalidArgument
from services.adapters.postgres.statements import check_table

_PARAMETER = re.compile(rb"\$\d+")

LONGEST_NAME = 63
"""Bytes of a name; PostgreSQL would cut a longer one."""

_FORMATS = {
    sql_pb2.COPY_FORMAT_UNSPECIFIED: "csv",
    sql_pb2.COPY_FORMAT_CSV: "csv",
    sql_pb2.COPY_FORMAT_TEXT: "text",
    sql_pb2.COPY_FORMAT_BINARY: "binary",
}


def copy_in(target: sql_pb2.CopyTarget) -> str:
    """The statement that stores what follows."""
    table = _name(target.table, "target.table")
    check_table(target.table)
    if target.schema:
        table = f"{_name(target.schema, 'target.schema')}.{table}"
    columns = ", ".join(_name(column, f"target.columns[{index}]") for index, column in enumerate(target.columns))
    return f"COPY {table}{f' ({columns})' if columns else ''} FROM STDIN {_options(target.options, 'target.options')}"


def copy_out(sql: str, arguments: Sequence[Any], options: sql_pb2.CopyOptions) -> str:
    """The statement that reads the rows of a checked SELECT; COPY takes no parameters, so they are written out."""
    text = sql.encode()
    for at, number in sorted(_parameters(pgparse.parse(sql)), reverse=True):
        text = text[:at] + _PARAMETER.sub(lambda _: _literal(arguments[number - 1]).encode(), text[at:], count=1)  # noqa: B023 -- called at once
    statement = f"COPY ({text.decode().rstrip().rstrip(';')}\n) TO STDOUT {_options(options, 'options')}"
    try:
        (parsed,) = pgparse.parse(statement)
    except (pgparse.PGQueryError, RecursionError, ValueError):
        raise InvalidArgument("This cannot be copied: leave out the semicolon.", field="statement.sql") from None
    assert list(parsed["stmt"]) == ["CopyStmt"], "what was one SELECT is one COPY"
    return statement


def _options(options: sql_pb2.CopyOptions, field: str) -> str:
    if options.format not in _FORMATS:
        raise InvalidArgument("This format is not known.", field=f"{field}.format")
    parts = [f"FORMAT {_FORMATS[options.format]}"]
    if options.header:
        parts.append("HEADER true")
    if options.delimiter:
        parts.append(f"DELIMITER {_quoted(options.delimiter, f'{field}.delimiter')}")
    if options.HasField("null_text"):
        parts.append(f"NULL {_quoted(options.null_text, f'{field}.null_text')}")
    return f"({', '.join(parts)})"


def _name(name: str, field: str) -> str:
    if not name or "\0" in name or len(name.encode()) > LONGEST_NAME:
        raise InvalidArgument(f"A name is 1 to {LONGEST_NAME} bytes without NUL.", field=field)
    return '"' + name.replace('"', '""') + '"'


def _quoted(text: str, field: str = "") -> str:
    if "\0" in text:
        raise InvalidArgument("NUL characters may not be used.", field=field)
    return "'" + text.replace("'", "''") + "'"


def _literal(value: Any) -> str:
    """A parameter in its place: of no type yet, as a parameter is."""
    if value is None:
        return " NULL "
    if isinstance(value, bool):
        return " 't' " if value else " 'f' "
    return f" {_quoted(str(value))} "


def _parameters(tree: Any) -> list[tuple[int, int]]:
    """Where parameters stand, in bytes, and their numbers."""
    found, waiting = [], [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting.extend(node)
        elif isinstance(node, dict):
            if "ParamRef" in node:
                found.append((node["ParamRef"].get("location", 0), node["ParamRef"]["number"]))
            waiting.extend(node.values())
    return found
