"""Notifications on the running set: inboxes, e-mail with titles and addresses, reminders and digests."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any

import httpx
import pytest
import pytest_asyncio
from dapr.proto.runtime.v1 import jobs_pb2

from kernel.dapr.sidecar import Sidecar
from tests.conftest import PASSWORD, Organisation, Stack

PATIENCE = 30.0
"""Seconds; a notice is there within a tenth of one when the machine is not busy."""


class Member:
    """A person with a client of every room."""

    def __init__(self, urls: dict[str, str], user_id: str, token: str) -> None:
        headers = {"authorization": f"Bearer {token}"}
        self.id = user_id
        self._clients = {
            room: httpx.AsyncClient(base_url=url, headers=headers, timeout=30) for room, url in urls.items()
        }

    async def __call__(self, method: str, path: str, *, room: str = "notifications", **options: Any) -> httpx.Response:
        return await self._clients[room].request(method, path, **options)

    async def do(self, room: str, method: str, path: str, **options: Any) -> dict[str, Any]:
        """Do something that must succeed."""
        answer = await self(method, path, room=room, **options)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else {}

    async def inbox(self, **query: Any) -> dict[str, Any]:
        """A page of the inbox."""
        return await self.do("notifications", "GET", "/v1/notifications", params=query)

    async def told(self, kind: str, holds: Callable[[dict[str, Any]], bool] = lambda _: True) -> dict[str, Any]:
        """Return the latest notice of a kind that is as expected, once it is there."""
        loop = asyncio.get_running_loop()
        end = loop.time() + PATIENCE
        while loop.time() < end:
            notices = (await self.inbox(limit=200))["notifications"]
            for notice in notices:
                if notice["kind"] == kind and holds(notice):
                    found: dict[str, Any] = notice
                    return found
            await asyncio.sleep(0.05)
        pytest.fail(f"no {kind} as expected in the inbox: {notices}")

    async def close(self) -> None:
        for client in self._clients.values():
            await client.aclose()


def is_mailed(notice: dict[str, Any]) -> bool:
    """Whether its e-mail has left."""
    return bool(notice["mail"] == "sent")


@pytest_asyncio.fixture
async def olga(http: dict[str, str], org: Organisation) -> AsyncIterator[Member]:
    """The owner of a fresh organisation."""
    member = Member(http, org.user_id, org.token)
    yield member
    await member.close()


@pytest_asyncio.fixture
async def mark(http: dict[str, str], olga: Member) -> AsyncIterator[Member]:
    """A member of the same organisation."""
    invitation = await olga.do(
        "users", "POST", "/v1/org/invitations", json={"email": f"mark-{uuid.uuid4().hex[:12]}@example.org"}
    )
    async with httpx.AsyncClient(base_url=http["users"], timeout=30) as anyone:
        answer = await anyone.post(
            "/v1/invitations/accept",
            json={"token": invitation["token"], "name": "Mark Member", "password": PASSWORD},
        )
    assert answer.status_code == 201, answer.text
    member = Member(http, answer.json()["user"]["id"], answer.json()["access_token"])
    yield member
    await member.close()


def letter(stack: Stack, notice: dict[str, Any]) -> EmailMessage:
    """The e-mail of a notice, from the local sink."""
    name = notice["id"].replace("notification-", "delivery-")
    mail = message_from_bytes((stack.layout.home / "data" / "mail" / f"{name}.eml").read_bytes(), policy=default)
    assert isinstance(mail, EmailMessage)
    return mail


def words(mail: EmailMessage) -> str:
    """What it says, as plain text."""
    body = mail.get_body(("plain",))
    assert body is not None
    return str(body.get_content())


async def new_task(member: Member, title: str = "Water the plants", **fields: Any) -> dict[str, Any]:
    """Create a task."""
    return await member.do("tasks", "POST", "/v1/tasks", json={"title": title, **fields})


async def test_a_new_user_is_welcomed_in_the_inbox_and_by_mail(stack: Stack, org: Organisation, olga: Member) -> None:
    notice = await olga.told("user.registered", is_mailed)
    mail = letter(stack, notice)

    assert notice["subject_id"] == olga.id
    assert mail["To"].addresses[0].addr_spec == org.email
    assert "Hello Olga Owner," in words(mail)
    assert mail["Message-ID"].startswith("<delivery-")


async def test_the_owner_hears_of_a_new_member(olga: Member, mark: Member) -> None:
    notice = await olga.told("org.member.added")

    assert notice["subject_id"] == mark.id
    assert notice["data"] == {"role": "member"}
    assert notice["mail"] is None


async def test_the_maker_hears_what_others_do_and_not_what_they_do_themselves(olga: Member, mark: Member) -> None:
    task = await new_task(olga)
    await olga.do("tasks", "PATCH", f"/v1/tasks/{task['id']}", json={"title": "Water all plants"})
    await mark.do("tasks", "POST", f"/v1/tasks/{task['id']}/complete")

    notice = await olga.told("task.completed")
    notices = (await olga.inbox())["notifications"]

    assert (notice["subject_id"], notice["actor_id"]) == (task["id"], mark.id)
    assert "task.updated" not in {each["kind"] for each in notices}


async def test_who_is_given_a_task_gets_a_mail_with_its_title(stack: Stack, olga: Member, mark: Member) -> None:
    task = await new_task(olga, "Grüße an <alle> & Bäume", assignee=mark.id)

    notice = await mark.told("task.assigned", is_mailed)
    mail = letter(stack, notice)

    assert notice["subject_id"] == task["id"]
    assert mail["Subject"] == "For you: Grüße an <alle> & Bäume"
    assert "Hello Mark Member," in words(mail)


@pytest.mark.ac("phase-v:A2.4:1")
async def test_a_reminder_comes_in_the_inbox_and_by_mail(stack: Stack, mark: Member) -> None:
    task = await new_task(mark, "Call the dentist")
    at = (datetime.now(UTC) + timedelta(seconds=1.5)).isoformat()
    await mark.do("tasks", "POST", f"/v1/tasks/{task['id']}/reminders", json={"remind_at": at})

    notice = await mark.told("reminder.triggered", is_mailed)

    assert notice["subject_id"] == task["id"]
    assert letter(stack, notice)["Subject"] == "Reminder: Call the dentist"


@pytest.mark.ac("phase-v:A2.1:1")
async def test_who_wants_no_mail_gets_none(mark: Member) -> None:
    await mark.do("users", "PATCH", "/v1/me/preferences", json={"notifications.mail": False})
    task = await new_task(mark)
    at = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
    await mark.do("tasks", "POST", f"/v1/tasks/{task['id']}/reminders", json={"remind_at": at})

    notice = await mark.told("reminder.triggered", lambda found: found["mail"] not in (None, "pending"))

    assert notice["mail"] == "skipped"


@pytest.mark.ac("phase-v:A2.4:2")
async def test_the_digest_comes_once_a_day_unless_forced(stack: Stack, olga: Member, mark: Member) -> None:
    soon = (datetime.now(UTC) + timedelta(hours=3)).isoformat()
    task = await new_task(olga, "Pay the rent", due_at=soon, assignee=mark.id)
    await mark.told("task.assigned")
    await olga.told("org.member.added")

    first = await olga.do("notifications", "POST", "/v1/digests/run")
    second = await olga.do("notifications", "POST", "/v1/digests/run")
    notice = await mark.told("digest", is_mailed)
    forced = await olga.do("notifications", "POST", "/v1/digests/run", json={"force": True})
    digests = [each for each in (await mark.inbox())["notifications"] if each["kind"] == "digest"]

    assert (first["sent"], first["had_one"]) == (2, 0)
    assert (second["sent"], second["had_one"]) == (0, 2)
    assert forced["sent"] == 2
    assert len(digests) == 2
    assert [due["task_id"] for due in notice["data"]["due"]] == [task["id"]]
    assert "Pay the rent" in words(letter(stack, notice))


async def test_a_member_cannot_send_the_digest_of_everybody(mark: Member) -> None:
    answer = await mark("POST", "/v1/digests/run")

    assert answer.status_code == 403
    assert answer.json()["code"] == "PERMISSION_DENIED"


@pytest.mark.ac("phase-v:A2.4:2")
async def test_the_digest_is_a_cron_job_of_the_scheduler(stack: Stack) -> None:
    environment = dict(line.split("=", 1) for line in stack.isa("env", "notifications").stdout.split() if "=" in line)
    sidecar = Sidecar(
        host="127.0.0.1",
        grpc_port=int(environment["DAPR_GRPC_PORT"]),
        http_port=int(environment["DAPR_HTTP_PORT"]),
        token=environment["DAPR_API_TOKEN"],
    )
    answer = await sidecar.stub.GetJob(
        jobs_pb2.GetJobRequest(name="daily-digest"), timeout=10, metadata=sidecar.metadata
    )
    await sidecar.close()

    assert answer.job.schedule == "0 0 7 * * *"


async def test_what_was_read_is_read_and_only_by_its_owner(olga: Member, mark: Member) -> None:
    notice = await olga.told("org.member.added")
    unread = (await olga.do("notifications", "GET", "/v1/notifications/unread"))["unread"]

    stolen = await mark("POST", f"/v1/notifications/{notice['id']}/read")
    once = await olga.do("notifications", "POST", f"/v1/notifications/{notice['id']}/read")
    twice = await olga.do("notifications", "POST", f"/v1/notifications/{notice['id']}/read")
    left = (await olga.inbox(unread=True))["notifications"]
    marked = await olga.do("notifications", "POST", "/v1/notifications/read")
    page = await olga.inbox()

    assert stolen.status_code == 404
    assert once["read_at"] is not None
    assert twice["read_at"] == once["read_at"]
    assert notice["id"] not in {each["id"] for each in left}
    assert marked["marked"] == unread - 1
    assert page["unread"] == 0


async def test_another_organisation_neither_sees_nor_reads_it(
    http: dict[str, str], olga: Member, organisation: Any
) -> None:
    notice = await olga.told("user.registered")
    stranger_org = await organisation("Strangers")
    stranger = Member(http, stranger_org.user_id, stranger_org.token)

    answer = await stranger("POST", f"/v1/notifications/{notice['id']}/read")
    seen = {each["id"] for each in (await stranger.inbox())["notifications"]}
    await stranger.close()

    assert answer.status_code == 404
    assert notice["id"] not in seen


async def test_pages_follow_each_other_without_gap_or_repetition(olga: Member, mark: Member) -> None:
    for _ in range(3):
        task = await new_task(olga)
        await mark.do("tasks", "POST", f"/v1/tasks/{task['id']}/complete")
        await olga.told("task.completed", lambda found, task=task: found["subject_id"] == task["id"])  # type: ignore[misc]

    seen: list[str] = []
    cursor: str | None = None
    while True:
        page = await olga.inbox(limit=2, **({"cursor": cursor} if cursor else {}))
        seen += [each["id"] for each in page["notifications"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break

    assert seen == [each["id"] for each in (await olga.inbox(limit=200))["notifications"]]
    assert len(seen) == len(set(seen)) >= 4


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "field"),
    [
        ("GET", "/v1/notifications?limit=0", None, 422, "limit"),
        ("GET", "/v1/notifications?cursor=nonsense", None, 400, "cursor"),
        ("POST", "/v1/notifications/read", {"till": "now"}, 422, "till"),
        ("POST", "/v1/notifications/read", {"until": "2026-02-30T00:00:00Z"}, 422, "until"),
        ("POST", "/v1/notifications/read", {"until": "2026-02-20T00:00:00"}, 400, "until"),
        ("POST", "/v1/digests/run", {"force": "perhaps"}, 422, "force"),
    ],
)
async def test_what_is_wrong_is_refused_by_name(
    olga: Member, method: str, path: str, body: object, status: int, field: str
) -> None:
    answer = await olga(method, path, json=body) if body else await olga(method, path)

    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert [error["field"] for error in answer.json()["errors"]] == [field]


async def test_who_shows_no_token_learns_nothing(http: dict[str, str]) -> None:
    async with httpx.AsyncClient(base_url=http["notifications"]) as client:
        assert (await client.get("/v1/notifications")).status_code == 401
        assert (await client.post("/v1/digests/run")).status_code == 401
