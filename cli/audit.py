"""`isa audit verify`: walk the audit's chains and name the first record that is not as it was written."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import httpx
import psycopg
import typer
from psycopg.rows import dict_row
from rich.console import Console
from rich.table import Table

from runtime.environment import engine_environment
from runtime.layout import layout_from_environment
from services.audit.domain import Break, Check, Head, Verdict
from services.audit.projections import lines_of, search_query
from services.audit.repository import record_of

DATABASE = "audit"
OWNER = "audit_owner"
OWNER_SECRET = "postgres-audit-owner"  # noqa: S105 -- a name, not the secret
LOG_TENANT = "isa-audit"
"""The tenant of the log store that holds the audit's lines; no token can name it."""
PORT = 8005
ANCHORS = 1000
ANCHORS_SINCE = timedelta(days=28)
PAGE = 5000
PAGES = 200

console = Console(highlight=False)
app = typer.Typer(add_completion=False, no_args_is_help=True, help="What the audit holds, and whether it still holds.")


@app.callback()
def audit() -> None:
    """Keep `verify` a command of its own."""


@app.command("verify")
def verify(
    *,
    org: Annotated[str, typer.Option("--org", help="Only this chain; `platform` is that of no organisation.")] = "",
    token: Annotated[
        str,
        typer.Option("--token", envvar="ISA_TOKEN", help="Ask the audit room as this person, for their organisation."),
    ] = "",
    url: Annotated[str, typer.Option("--url", help="Where the audit room is; default: the local set's.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a chain.")] = False,
) -> None:
    """Check chains record by record, and their ends against the log store; fail when one is broken.

    With a token the audit room checks the chain of that person's organisation. Without, all chains are read
    directly, with the secrets of the local set.
    """
    verdicts = [from_room(token, url)] if token else list(from_database(org))
    if as_json:
        for verdict in verdicts:
            print(json.dumps(as_object(verdict)))
    else:
        show(verdicts)
    if any(not verdict.is_intact for verdict in verdicts):
        raise typer.Exit(1)


def show(verdicts: list[Verdict]) -> None:
    """Print a table of chains, and a line for each break."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("organisation")
    table.add_column("records", justify="right")
    table.add_column("anchored", justify="right")
    table.add_column("head")
    table.add_column("verdict")
    for verdict in verdicts:
        word = "[green]intact[/]" if verdict.broken is None else f"[red]broken at {verdict.broken.seq}[/]"
        anchored = str(verdict.anchored_seq) if verdict.anchored_seq else "-"
        table.add_row(verdict.org_id, str(verdict.records), anchored, verdict.head.hash[:16], word)
    console.print(table)
    for verdict in verdicts:
        if broken := verdict.broken:
            name = f" ({broken.record_id})" if broken.record_id else ""
            console.print(f"[red]{verdict.org_id}[/]: record {broken.seq}{name}: {broken.reason}")
    total = sum(verdict.records for verdict in verdicts)
    bad = sum(not verdict.is_intact for verdict in verdicts)
    console.print(f"{len(verdicts)} chain(s), {total} record(s), {bad} broken.")


def as_object(verdict: Verdict) -> dict[str, Any]:
    """Return a verdict as JSON has it; the same names as the room's answer."""
    broken = verdict.broken
    return {
        "org_id": verdict.org_id,
        "is_intact": verdict.is_intact,
        "records": verdict.records,
        "head_seq": verdict.head.seq,
        "head_hash": verdict.head.hash,
        "anchored_seq": verdict.anchored_seq,
        "broken_seq": broken.seq if broken else None,
        "broken_record_id": broken.record_id if broken else None,
        "reason": broken.reason if broken else None,
    }


def from_room(token: str, url: str) -> Verdict:
    """Ask the audit room for the verdict on one's own organisation."""
    base = url or f"http://127.0.0.1:{layout_from_environment().port(PORT)}"
    try:
        response = httpx.get(f"{base}/v1/audit/verify", headers={"authorization": f"Bearer {token}"}, timeout=120)
    except httpx.HTTPError as error:
        console.print(f"[red]The audit room does not answer at {base}.[/] Start the set: make start.")
        raise typer.Exit(2) from error
    body = response.json()
    if response.is_error:
        console.print(f"[red]{body.get('detail', response.status_code)}[/]")
        raise typer.Exit(2)
    seq = body["broken_seq"]
    return Verdict(
        org_id=body["org_id"],
        records=body["records"],
        head=Head(seq=body["head_seq"], hash=body["head_hash"]),
        anchored_seq=body["anchored_seq"],
        broken=Break(seq=seq, record_id=body["broken_record_id"] or "", reason=body["reason"]) if seq else None,
    )


def from_database(org: str) -> Iterator[Verdict]:
    """Check chains where they are kept, one after the other; a chain may grow meanwhile."""
    with connected() as connection:
        found = connection.execute("SELECT org_id FROM audit_chains UNION SELECT DISTINCT org_id FROM audit_records")
        orgs = sorted(row["org_id"] for row in found)
        if org:
            if org not in orgs:
                console.print(f"There is no chain {org}. There are {len(orgs)}: {', '.join(orgs[:10])}")
                raise typer.Exit(2)
            orgs = [org]
        anchors = anchors_of(org)  # before the snapshots: what the log store knows must be in them
        for org_id in orgs:
            with connection.transaction():
                connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                yield check(connection, org_id, anchors.get(org_id, {}))


@contextmanager
def connected() -> Iterator[psycopg.Connection[dict[str, Any]]]:
    """Log in to the audit's database as its owner."""
    layout = layout_from_environment()
    environment = engine_environment(layout)
    try:
        password = os.environ.get("ISA_AUDIT_OWNER_PASSWORD") or json.loads(layout.secrets.read_text())[OWNER_SECRET]
    except (FileNotFoundError, KeyError) as error:
        console.print(f"[red]{layout.secrets} has no {OWNER_SECRET}.[/] Give --token, or run it where the set runs.")
        raise typer.Exit(2) from error
    try:
        connection = psycopg.connect(
            host=environment["POSTGRES_HOST"],
            port=int(environment["POSTGRES_PORT"]),
            user=OWNER,
            password=password,
            dbname=DATABASE,
            row_factory=dict_row,
            autocommit=True,
            connect_timeout=10,
        )
    except psycopg.OperationalError as error:
        console.print(f"[red]The audit's database does not answer:[/] {str(error).strip()}")
        raise typer.Exit(2) from error
    with connection:
        yield connection


def check(connection: psycopg.Connection[dict[str, Any]], org_id: str, anchors: dict[int, str]) -> Verdict:
    """Walk one chain from its first record."""
    heads = connection.execute("SELECT seq, hash FROM audit_chains WHERE org_id = %s", [org_id]).fetchall()
    walk = Check(org_id, anchors=anchors)
    with connection.cursor(name="chain") as rows:
        rows.itersize = 2000
        rows.execute("SELECT * FROM audit_records WHERE org_id = %s ORDER BY seq", [org_id])
        for row in rows:
            walk.add(record_of(org_id, row))
    return walk.verdict(Head(seq=heads[0]["seq"], hash=heads[0]["hash"]) if heads else None)


def anchors_of(org: str) -> dict[str, dict[int, str]]:
    """Return the newest hashes that the log store knows, by chain and number; none when it is not reached.

    One walk backwards over the lines serves all chains: a question a chain would take a second each.
    """
    found: dict[str, dict[int, str]] = {}
    now = datetime.now(UTC)
    start, end = nanoseconds(now - ANCHORS_SINCE), nanoseconds(now + timedelta(seconds=5))
    query = search_query(org, "") if org else '{service="audit"}'
    for _ in range(PAGES):
        lines = page_of(query, start, end)
        for line in lines_of(text for _, text in lines):
            known = found.setdefault(line["org_id"], {})
            if len(known) < ANCHORS:
                known[line["seq"]] = line["hash"]
        if len(lines) < PAGE or (org and len(found.get(org, {})) >= ANCHORS):
            break
        end = min(time for time, _ in lines) + 1  # lines of one push have one time
    return found


def nanoseconds(moment: datetime) -> int:
    """Return a moment as the log store counts it."""
    return int(moment.timestamp() * 1e9)


def page_of(query: str, start: int, end: int) -> list[tuple[int, str]]:
    """Return the newest lines of a time range with their times; none when the log store is not reached."""
    environment = engine_environment(layout_from_environment())
    parameters = {"query": query, "start": str(start), "end": str(end), "limit": str(PAGE), "direction": "backward"}
    try:
        response = httpx.get(
            f"{environment['LOKI_URL']}/loki/api/v1/query_range",
            params=parameters,
            headers={"X-Scope-OrgID": LOG_TENANT},
            timeout=60,
        )
        response.raise_for_status()
    except httpx.HTTPError:
        return []
    return [(int(time), text) for stream in response.json()["data"]["result"] for time, text, *_ in stream["values"]]
