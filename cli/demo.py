"""`isa demo`: the story of the set, told against the real parts and checked as it is told.

Two organisations sign up. One imports its task files, works on them, is reminded and gets its digest. Then the evidence
is read from where it really is: Kafka, the rooms' databases, the audit. It fails when something does not add up.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psycopg
import typer
from confluent_kafka import Consumer, TopicPartition
from psycopg.rows import dict_row
from rich.console import Console
from rich.table import Table

from cli import topics
from cli.migrate import url as owner_url
from runtime.environment import engine_environment
from runtime.layout import CHECKOUT, layout_from_environment
from runtime.processes import load_apps

EXAMPLES = CHECKOUT / "examples"
PRIMARY = (
    "task.created",
    "task.updated",
    "task.completed",
    "task.deleted",
    "user.registered",
    "user.authenticated",
    "notification.sent",
    "reminder.triggered",
)
EFFECTS = {
    "notifications": "SELECT seen_at AS at FROM inbox WHERE event_id = %s",
    "analytics": "SELECT seen_at AS at FROM inbox WHERE event_id = %s",
    "audit": "SELECT recorded_at AS at FROM audit_records WHERE record_id = %s",
}
"""Where each consumer's database has the effect of an event."""
PATIENCE = 60.0
"""Seconds that an effect may take before the story is given up."""
PAUSE = 0.1
TYPES = {".txt": "text/plain", ".ics": "text/calendar"}

T = TypeVar("T")
console = Console(highlight=False)


class Untrue(Exception):
    """The set did not do what it promises."""


def expect(is_true: bool, what: str) -> None:
    """Go on when it is true, else end the story."""
    if not is_true:
        raise Untrue(what)


def until(what: str, attempt: Callable[[], T | None]) -> T:
    """Return what an attempt finds, asking again while it finds nothing."""
    end = time.monotonic() + PATIENCE
    while (found := attempt()) is None:
        expect(time.monotonic() < end, f"{what} did not come within {PATIENCE:.0f} s.")
        time.sleep(PAUSE)
    return found


def chapter(title: str) -> None:
    """Begin the next part of the story."""
    console.print(f"\n[bold]{title}[/]", soft_wrap=True)


def tell(line: str) -> None:
    """Say what happened."""
    console.print(f"  {line}", soft_wrap=True)


@dataclass(frozen=True)
class Member:
    """A person of an organisation, logged in, at every room."""

    org_id: str
    user_id: str
    token: str
    urls: Mapping[str, str]

    def ask(self, method: str, room: str, path: str, **arguments: Any) -> httpx.Response:
        """Call a room as this person."""
        headers = {"authorization": f"Bearer {self.token}", **arguments.pop("headers", {})}
        return httpx.request(method, self.urls[room] + path, headers=headers, timeout=60, **arguments)

    def get(self, room: str, path: str) -> Any:
        """Return what a GET answers."""
        return answered(self.ask("GET", room, path))

    def post(self, room: str, path: str, **arguments: Any) -> Any:
        """Return what a POST answers."""
        return answered(self.ask("POST", room, path, **arguments))


def answered(response: httpx.Response) -> Any:
    """Return the JSON of an answer; the story ends at a refusal that it does not expect."""
    expect(response.is_success, f"{response.request.method} {response.request.url.path}: {response.text}")
    return response.json() if response.content else None


def sign_up(urls: Mapping[str, str], organisation: str, name: str) -> Member:
    """Sign an organisation up and return its owner."""
    email = f"{name.split()[0].lower()}.{secrets.token_hex(4)}@example.org"
    body = {"organisation": organisation, "name": name, "email": email, "password": secrets.token_urlsafe(18)}
    answer = answered(httpx.post(urls["users"] + "/v1/signup", json=body, timeout=30))
    member = Member(answer["org"]["id"], answer["user"]["id"], answer["access_token"], urls)
    tell(f"{organisation}: {name} is the owner of [cyan]{member.org_id}[/]")
    return member


def import_file(member: Member, path: Path) -> None:
    """Import a task file, and say what was taken and what was refused and why."""
    body = path.read_bytes()
    report = member.post("tasks", "/v1/tasks/import", content=body, headers={"content-type": TYPES[path.suffix]})
    lines = len(body.splitlines())
    tell(
        f"{path.name}: {lines} lines, [green]{report['taken']} tasks taken[/], "
        f"{report['refused']} refused, {report['already_there']} twice, {report['skipped']} skipped"
    )
    for line in [line for line in report["lines"] if line["outcome"] == "refused"][:4]:
        tell(f"   line {line['line']:>3}: {line['text'][:44]!r} - {line['reason']}")


def work_on(member: Member) -> dict[str, Any]:
    """Create, update, complete and delete tasks; return the one that the evidence follows."""
    title = "Order brake pads for the cargo bike"
    made = member.ask(
        "POST", "tasks", "/v1/tasks", json={"title": title}, headers={"idempotency-key": secrets.token_hex(8)}
    )
    task: dict[str, Any] = answered(made)
    task["correlation_id"] = made.headers["isa-correlation-id"]
    tell(f"created [cyan]{task['id']}[/] {title!r}, correlation id [cyan]{task['correlation_id']}[/]")
    stale = made.headers["etag"]
    changed = member.ask(
        "PATCH", "tasks", f"/v1/tasks/{task['id']}", json={"priority": "A"}, headers={"if-match": stale}
    )
    answered(changed)
    refused = member.ask(
        "PATCH", "tasks", f"/v1/tasks/{task['id']}", json={"priority": "B"}, headers={"if-match": stale}
    )
    expect(refused.status_code == 412, f"a stale ETag gave {refused.status_code}")
    tell(f"updated it; the same ETag again is refused: {refused.json()['detail']}")
    answered(member.ask("POST", "tasks", f"/v1/tasks/{task['id']}/complete"))
    others = member.get("tasks", "/v1/tasks?status=open&limit=5")["tasks"]
    for other in others[:3]:
        answered(member.ask("POST", "tasks", f"/v1/tasks/{other['id']}/complete"))
    for other in others[3:]:
        answered(member.ask("DELETE", "tasks", f"/v1/tasks/{other['id']}"))
    tell(f"completed it and {len(others[:3])} others, deleted {len(others[3:])}")
    return task


def be_reminded(member: Member) -> None:
    """Set a reminder two seconds ahead, and see it arrive in the inbox."""
    task = member.post("tasks", "/v1/tasks", json={"title": "Call the wheel builder"})
    at = datetime.now(UTC) + timedelta(seconds=2)
    member.post("tasks", f"/v1/tasks/{task['id']}/reminders", json={"remind_at": at.isoformat()})

    def arrived() -> Any:
        page = member.get("notifications", "/v1/notifications")["notifications"]
        return next((item for item in page if item["kind"] == "reminder.triggered"), None)

    notice = until("The reminder", arrived)
    took = datetime.fromisoformat(notice["at"]) - at
    tell(f"a Dapr job fired the reminder; it was in the inbox {took.total_seconds() * 1000:.0f} ms after its time")
    digest = member.post("notifications", "/v1/digests/run")
    tell(f"the digest job ran: {digest['sent']} sent for {digest['day']}")


def show_topics() -> None:
    """Show every topic from Kafka itself, once all groups have read it."""
    cluster = topics.Cluster(engine_environment(layout_from_environment())["KAFKA_BROKERS"])

    def settled() -> list[dict[str, Any]] | None:
        rows = [row for row in topics.overview(cluster) if row["topic"] in PRIMARY]
        for row in rows:
            row["lag"] = {group: lag for group, lag in row["lag"].items() if group in EFFECTS}
        return rows if all(not any(row["lag"].values()) for row in rows) else None

    rows = until("The end of all lag", settled)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("topic", "records", "offset", "dlq", "lag by consumer group"):
        table.add_column(heading, justify="right" if heading in ("records", "offset", "dlq") else "left")
    for row in rows:
        lag = ", ".join(f"{group} {number}" for group, number in row["lag"].items())
        table.add_row(row["topic"], str(row["records"]), str(row["offset"]), str(row["dlq"]), lag)
    console.print(table)
    empty = [row["topic"] for row in rows if not row["records"]]
    expect(not empty and len(rows) == len(PRIMARY), f"there is no record of {', '.join(empty)}")


def rows_of(room: str, org_id: str, query: str, *arguments: object) -> list[dict[str, Any]]:
    """Read rows of an organisation in a room's database, past the room."""
    address = owner_url(room).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(address, row_factory=dict_row) as connection:
        connection.execute("SELECT set_config('isa.org', %s, false)", (org_id,))  # its owner is bound to one, too
        return connection.execute(query.encode(), arguments).fetchall()


def record_on_kafka(topic: str, event_id: str) -> tuple[int, int, dict[str, str]]:
    """Return partition, offset and headers of an event's record, read from the end of its topic."""
    brokers = engine_environment(layout_from_environment())["KAFKA_BROKERS"]
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": "isa-demo", "enable.auto.commit": False})
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        ends = {number: consumer.get_watermark_offsets(TopicPartition(topic, number)) for number in partitions}
        consumer.assign([TopicPartition(topic, number, low) for number, (low, _) in ends.items()])
        left = sum(high - low for low, high in ends.values())
        while left > 0:
            for message in consumer.consume(500, timeout=5):
                left -= 1
                headers = text_headers(message.headers())
                if headers.get("ce_id") == event_id:
                    return message.partition() or 0, message.offset() or 0, headers
    finally:
        consumer.close()
    raise Untrue(f"{topic} has no record of {event_id}")


def text_headers(headers: Any) -> dict[str, str]:
    """Return a record's headers as text."""
    return {name: value.decode() if isinstance(value, bytes) else str(value) for name, value in headers or []}


def follow(member: Member, task: Mapping[str, Any]) -> None:
    """Follow one task from its request to its audit record, by the ids that all of them carry."""
    outbox = rows_of(
        "tasks",
        member.org_id,
        "SELECT event_id, created_at, published_at, headers FROM outbox WHERE key = %s AND topic = 'task.created'",
        task["id"],
    )[0]
    event_id, trace_id = outbox["event_id"], outbox["headers"]["traceparent"].split("-")[1]
    published = (outbox["published_at"] - outbox["created_at"]).total_seconds() * 1000
    tell(f"HTTP      POST /v1/tasks            correlation {task['correlation_id']}, trace {trace_id}")
    tell(f"outbox    event {event_id}   committed with the task, marked as published {published:.0f} ms later")
    partition, offset, headers = record_on_kafka("task.created", event_id)
    expect(headers["ce_correlationid"] == task["correlation_id"], "Kafka has another correlation id")
    expect(headers["traceparent"].split("-")[1] == trace_id, "Kafka has another trace")
    tell(f"Kafka     task.created             partition {partition}, offset {offset}, the same correlation and trace")
    for room, query in EFFECTS.items():

        def seen(room: str = room, query: str = query) -> datetime | None:
            found = rows_of(room, member.org_id, query, event_id)
            return found[0]["at"] if found else None

        at = until(f"The effect in {room}", seen)
        after = (at - outbox["created_at"]).total_seconds() * 1000
        tell(f"consumer  {room:<24} effect committed {after:.0f} ms after the task")

    def audited() -> list[Any] | None:
        found = member.get("audit", f"/v1/audit?correlation_id={task['correlation_id']}")["records"]
        return found if {record["kind"] for record in found} == {"call", "event"} else None

    for record in until("The audit record", audited):
        expect(record["trace_id"] == trace_id, "the audit has another trace")
        what = f"{record['kind']} {record['action']}"
        tell(f"audit     {what:<24} record {record['seq']} of the chain, hash {record['hash'][:12]}")


def compare(members: Mapping[str, Member]) -> None:
    """Show the figures of the organisations."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("analytics")
    for name in members:
        table.add_column(name, justify="right")
    summaries = [member.get("analytics", "/v1/analytics/summary") for member in members.values()]
    for figure in ("open", "overdue", "done", "deleted"):
        table.add_row(f"tasks {figure}", *(str(summary["tasks"][figure]) for summary in summaries))
    for topic in PRIMARY:
        table.add_row(topic, *(str(summary["topics"][topic]) for summary in summaries))
    console.print(table)


def keep_out(stranger: Member, owner: Member, task: Mapping[str, Any]) -> None:
    """Show that one organisation sees nothing of the other."""
    answer = stranger.ask("GET", "tasks", f"/v1/tasks/{task['id']}")
    expect(answer.status_code == 404, f"another organisation's task gave {answer.status_code}")
    tell(f"GET of the other's task: 404, {answer.json()['detail']!r}")
    own = {item["id"] for item in stranger.get("tasks", "/v1/tasks")["tasks"]}
    theirs = {item["id"] for item in owner.get("tasks", "/v1/tasks?limit=200")["tasks"]}
    expect(not own & theirs, "a task is in both lists")
    records = stranger.get("audit", "/v1/audit?limit=200")["records"]
    expect(not any(owner.org_id in str(record) for record in records), "the audit shows the other organisation")
    summary = stranger.get("analytics", "/v1/analytics/summary")
    expect(summary["topics"]["task.created"] == len(own), "the analytics count the other's tasks")
    tell(f"its own list has {len(own)} task, its analytics {len(own)}; {len(records)} audit records, none of the other")
    forged = httpx.get(
        stranger.urls["tasks"] + f"/v1/tasks/{task['id']}",
        headers={"authorization": f"Bearer {stranger.token}", "isa-org": owner.org_id},
        timeout=30,
    )
    expect(forged.status_code == 403, f"a forged organisation gave {forged.status_code}")
    tell(f"with the other's id in the metadata: 403, {forged.json()['detail']!r}")


def tell_story(urls: Mapping[str, str]) -> None:
    """Tell it from the beginning to the end."""
    began = time.monotonic()
    chapter("Two organisations sign up")
    cycles = sign_up(urls, "Spoke & Bean Cycles", "Mira Vogel")
    bakery = sign_up(urls, "Nordlicht Bakery", "Jonas Brandt")
    chapter("One brings its task files, messy as such files are")
    for path in sorted(path for path in EXAMPLES.iterdir() if path.suffix in TYPES):
        import_file(cycles, path)
    bakery.post("tasks", "/v1/tasks", json={"title": "Feed the sourdough", "priority": "B"})
    chapter("It works on its tasks")
    task = work_on(cycles)
    chapter("A reminder fires, and the digest is sent")
    be_reminded(cycles)
    chapter("The eight topics, as Kafka has them")
    show_topics()
    chapter("One task, from HTTP through outbox, Kafka and three consumers to its audit record")
    follow(cycles, task)
    chapter("Both organisations in numbers")
    compare({"Spoke & Bean": cycles, "Nordlicht": bakery})
    chapter("One organisation sees nothing of the other")
    keep_out(bakery, cycles, task)
    console.print(f"\n[bold green]All of it held.[/] {time.monotonic() - began:.1f} s")


def room_urls() -> dict[str, str]:
    """Return where each HTTP room is reached."""
    layout = layout_from_environment()
    return {
        app.name: f"http://127.0.0.1:{layout.port(int(app.values['appPort']))}"
        for app in load_apps()
        if not app.is_grpc
    }


def demo() -> None:
    """Tell the story of the set against the real parts, and check it; needs a started set."""
    try:
        tell_story(room_urls())
    except Untrue as error:
        console.print(f"\n[bold red]That did not hold:[/] {error}", markup=True)
        raise typer.Exit(1) from None
    except httpx.ConnectError as error:
        console.print(
            f"\n[bold red]{error.request.url.host}:{error.request.url.port} does not answer.[/] Run `isa start`."
        )
        raise typer.Exit(1) from None


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("demo")(demo)
