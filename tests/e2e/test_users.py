"""Users, as people and programs meet them: signing up, joining, logging in, being removed, and proof that ends."""

from __future__ import annotations

import asyncio
import base64
import email.policy
import json
import os
import re
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from email import message_from_bytes
from pathlib import Path
from typing import Any

import httpx
import jwt
import psycopg
import pytest

from tests.conftest import Stack

PASSWORD = "a quiet morning 1"
WITHIN = 1.0
"""Seconds in which a revocation reaches every room."""


class Person:
    """Somebody with a token, and a client of every room."""

    def __init__(self, urls: dict[str, str], answer: dict[str, Any], email: str) -> None:
        self.answer = answer
        self.email = email
        self.id: str = answer["user"]["id"]
        self.org: str = answer["user"]["org_id"]
        self.token: str = answer["access_token"]
        self.refresh_token: str = answer["refresh_token"]
        self._clients = {room: httpx.AsyncClient(base_url=url, timeout=30) for room, url in urls.items()}

    async def __call__(self, method: str, path: str, *, room: str = "users", **options: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.token}", **options.pop("headers", {})}
        return await self._clients[room].request(method, path, headers=headers, **options)

    async def close(self) -> None:
        for client in self._clients.values():
            await client.aclose()


class World:
    """Makes people, and closes their clients."""

    def __init__(self, urls: dict[str, str]) -> None:
        self.urls = urls
        self.anyone = httpx.AsyncClient(base_url=urls["users"], timeout=30)
        self.people: list[Person] = []

    async def owner(self, organisation: str = "Ada & Daughters") -> Person:
        address = new_address()
        answer = await self.anyone.post(
            "/v1/signup",
            json={"organisation": organisation, "name": "Ada", "email": address, "password": PASSWORD},
        )
        assert answer.status_code == 201, answer.text
        return self._known(answer.json(), address)

    async def member(self, owner: Person, role: str = "member") -> Person:
        address = new_address()
        invited = await owner("POST", "/v1/org/invitations", json={"email": address, "role": role})
        assert invited.status_code == 201, invited.text
        answer = await self.anyone.post(
            "/v1/invitations/accept",
            json={"token": invited.json()["token"], "name": "Grace", "password": PASSWORD},
        )
        assert answer.status_code == 201, answer.text
        return self._known(answer.json(), address)

    async def log_in(self, person: Person, password: str = PASSWORD) -> Person:
        answer = await self.anyone.post("/v1/login", json={"email": person.email, "password": password})
        assert answer.status_code == 200, answer.text
        return self._known(answer.json(), person.email)

    async def oauth(self, **form: str) -> httpx.Response:
        return await self.anyone.post("/oauth/token", data=form)

    def _known(self, answer: dict[str, Any], address: str) -> Person:
        person = Person(self.urls, answer, address)
        self.people.append(person)
        return person


@pytest.fixture
async def world(http: dict[str, str]) -> AsyncIterator[World]:
    world = World(http)
    yield world
    for person in world.people:
        await person.close()
    await world.anyone.aclose()


def new_address() -> str:
    return f"p{uuid.uuid4().hex[:16]}@people.example"


async def becomes(
    status: int, ask: Callable[[], Awaitable[httpx.Response]], *, within: float = WITHIN
) -> httpx.Response:
    """Ask until the answer has a status; fail when that takes longer than it may."""
    until = time.monotonic() + within
    while True:
        answer = await ask()
        if answer.status_code == status:
            return answer
        assert time.monotonic() < until, f"still {answer.status_code} after {within} s: {answer.text}"
        await asyncio.sleep(0.02)


def problem(answer: httpx.Response, status: int, *, field: str | None = None) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    if field is not None:
        assert field in [error["field"] for error in body["errors"]], body
    return body


async def test_an_organisation_signs_up_and_its_owner_is_known_everywhere(world: World) -> None:
    ada = await world.owner("Ada & Daughters")

    me = (await ada("GET", "/v1/me")).json()

    assert me["user"] | {"created_at": ""} == {
        "id": ada.id,
        "org_id": ada.org,
        "name": "Ada",
        "email": ada.email,
        "role": "owner",
        "created_at": "",
        "suspended_at": None,
    }
    assert me["org"]["name"] == "Ada & Daughters"
    assert re.fullmatch(r"org-[a-z0-9]{1,32}", ada.org)
    assert re.fullmatch(r"user-[a-z0-9]{1,32}", ada.id)
    assert (await ada("GET", "/v1/analytics/summary", room="analytics")).status_code == 200


@pytest.mark.ac("platform:R10.1")
async def test_a_token_is_verified_with_the_published_keys_alone(world: World) -> None:
    ada = await world.owner()
    answer = await world.anyone.get("/.well-known/jwks.json")
    keys = {key.key_id: key for key in jwt.PyJWKSet.from_dict(answer.json()).keys}

    header = jwt.get_unverified_header(ada.token)
    claims = jwt.decode(
        ada.token, keys[header["kid"]], algorithms=["EdDSA", "RS256"], audience="isa", issuer="isa-users"
    )

    assert (claims["sub"], claims["org"], claims["roles"]) == (ada.id, ada.org, ["owner"])
    assert 590 <= claims["exp"] - claims["iat"] <= 600
    assert "max-age" in answer.headers["cache-control"]
    assert not any("d" in key for key in answer.json()["keys"])


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"email": "ada"}, "email"),
        ({"email": "ada@localhost"}, "email"),
        ({"password": "short"}, "password"),
        ({"password": "password123"}, "password"),
        ({"name": " "}, "name"),
        ({"organisation": "x" * 101}, "organisation"),
        ({"role": "owner"}, "role"),
        ({"email": None}, "email"),
    ],
)
async def test_a_bad_field_is_named_and_nothing_is_written(world: World, change: dict[str, Any], field: str) -> None:
    good = {"organisation": "Org", "name": "Ada", "email": new_address(), "password": PASSWORD}

    answer = await world.anyone.post("/v1/signup", json=good | change)

    problem(answer, 422, field=field)
    if "email" not in change:
        assert (await world.oauth(grant_type="password", username=good["email"], password=PASSWORD)).status_code == 400


async def test_an_email_address_is_one_user(world: World) -> None:
    ada = await world.owner()
    again = {"organisation": "B", "name": "Bob", "email": ada.email.upper(), "password": PASSWORD}

    problem(await world.anyone.post("/v1/signup", json=again), 409, field="email")


async def test_of_two_who_sign_up_at_once_with_one_address_one_succeeds(world: World) -> None:
    body = {"organisation": "B", "name": "Bob", "email": new_address(), "password": PASSWORD}

    answers = await asyncio.gather(*(world.anyone.post("/v1/signup", json=body) for _ in range(4)))

    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]


@pytest.mark.ac("platform:R9.4")
async def test_a_wrong_password_and_an_unknown_address_look_the_same(world: World) -> None:
    ada = await world.owner()

    wrong = await world.anyone.post("/v1/login", json={"email": ada.email, "password": "not it at all"})
    unknown = await world.anyone.post("/v1/login", json={"email": new_address(), "password": PASSWORD})
    too_short = await world.anyone.post("/v1/login", json={"email": ada.email, "password": "x"})

    for answer in (wrong, unknown, too_short):
        problem(answer, 401)
        assert answer.headers["www-authenticate"].startswith("Bearer")
    assert len({answer.json()["detail"] for answer in (wrong, unknown, too_short)}) == 1


async def test_guessing_is_slowed_down_and_the_owner_told_when_to_come_back(world: World) -> None:
    ada = await world.owner()

    answers = [
        await world.anyone.post("/v1/login", json={"email": ada.email, "password": f"guess {i} of many"})
        for i in range(11)
    ]
    right = await world.anyone.post("/v1/login", json={"email": ada.email, "password": PASSWORD})

    assert [answer.status_code for answer in answers] == [401] * 10 + [429]
    problem(right, 429)
    assert 0 < int(right.headers["retry-after"]) <= 900


async def test_guesses_made_at_once_count_as_well(world: World) -> None:
    ada = await world.owner()

    answers = await asyncio.gather(
        *(
            world.anyone.post("/v1/login", json={"email": ada.email, "password": f"guess {i} of many"})
            for i in range(20)
        )
    )

    assert 10 <= sum(answer.status_code == 401 for answer in answers) <= 10 + (os.cpu_count() or 1)


async def test_many_right_log_ins_at_once_are_no_guesses(world: World) -> None:
    ada = await world.owner()

    answers = await asyncio.gather(
        *(world.anyone.post("/v1/login", json={"email": ada.email, "password": PASSWORD}) for _ in range(20))
    )

    assert {answer.status_code for answer in answers} == {200}


@pytest.mark.ac("platform:R9.1", "platform:R9.6")
async def test_a_refresh_token_works_once(world: World) -> None:
    ada = await world.owner()

    second = (await world.anyone.post("/v1/refresh", json={"refresh_token": ada.refresh_token})).json()
    third = await world.anyone.post("/v1/refresh", json={"refresh_token": second["refresh_token"]})

    assert third.status_code == 200
    assert len({ada.refresh_token, second["refresh_token"], third.json()["refresh_token"]}) == 3
    ada.token = third.json()["access_token"]
    assert (await ada("GET", "/v1/me")).status_code == 200


async def test_a_second_use_of_a_refresh_token_ends_the_session(world: World) -> None:
    ada = await world.owner()
    second = (await world.anyone.post("/v1/refresh", json={"refresh_token": ada.refresh_token})).json()

    problem(await world.anyone.post("/v1/refresh", json={"refresh_token": ada.refresh_token}), 401)

    problem(await world.anyone.post("/v1/refresh", json={"refresh_token": second["refresh_token"]}), 401)
    ada.token = second["access_token"]
    await becomes(401, lambda: ada("GET", "/v1/me"))
    await becomes(401, lambda: ada("GET", "/v1/analytics/summary", room="analytics"))


@pytest.mark.ac("platform:R10.5")
async def test_after_logging_out_the_token_is_refused_in_every_room_within_a_second(world: World) -> None:
    ada = await world.owner()
    elsewhere = await world.log_in(ada)
    assert (await ada("GET", "/v1/analytics/summary", room="analytics")).status_code == 200

    assert (await ada("POST", "/v1/logout")).status_code == 204

    await asyncio.gather(
        becomes(401, lambda: ada("GET", "/v1/me")),
        becomes(401, lambda: ada("GET", "/v1/analytics/summary", room="analytics")),
    )
    assert (await elsewhere("GET", "/v1/me")).status_code == 200


async def test_sessions_are_listed_and_ended_one_by_one_or_all_but_this(world: World) -> None:
    ada = await world.owner()
    phone, laptop = await world.log_in(ada), await world.log_in(ada)
    listed = (await ada("GET", "/v1/sessions")).json()["sessions"]
    assert len(listed) == 3
    assert [session["is_current"] for session in listed].count(True) == 1
    claims = jwt.decode(phone.token, options={"verify_signature": False})

    assert (await ada("DELETE", f"/v1/sessions/{claims['sid']}")).status_code == 204
    await becomes(401, lambda: phone("GET", "/v1/me"))
    assert (await laptop("GET", "/v1/me")).status_code == 200

    assert (await ada("DELETE", "/v1/sessions")).status_code == 204
    await becomes(401, lambda: laptop("GET", "/v1/me"))
    assert (await ada("GET", "/v1/me")).status_code == 200
    stranger = await world.owner()
    problem(await stranger("DELETE", f"/v1/sessions/{claims['sid']}"), 404)


async def test_an_invited_person_joins_with_the_role_of_the_invitation(world: World) -> None:
    ada = await world.owner()

    grace = await world.member(ada, "viewer")

    assert grace.org == ada.org
    members = (await ada("GET", "/v1/org/members")).json()["members"]
    assert {(each["id"], each["role"]) for each in members} == {(ada.id, "owner"), (grace.id, "viewer")}
    assert (await grace("GET", f"/v1/users/{ada.id}")).json()["email"] == ada.email
    problem(await grace("POST", "/v1/org/invitations", json={"email": new_address()}), 403)


async def test_an_invitation_works_once_and_can_be_taken_back(world: World) -> None:
    ada = await world.owner()
    first = (await ada("POST", "/v1/org/invitations", json={"email": new_address()})).json()
    problem(await ada("POST", "/v1/org/invitations", json={"email": first["email"]}), 409, field="email")
    body = {"token": first["token"], "name": "Grace", "password": PASSWORD}

    answers = await asyncio.gather(*(world.anyone.post("/v1/invitations/accept", json=body) for _ in range(3)))

    assert sorted(answer.status_code for answer in answers) == [201, 404, 404]
    second = (await ada("POST", "/v1/org/invitations", json={"email": new_address()})).json()
    assert [each["id"] for each in (await ada("GET", "/v1/org/invitations")).json()["invitations"]] == [second["id"]]
    assert (await ada("DELETE", f"/v1/org/invitations/{second['id']}")).status_code == 204
    problem(await world.anyone.post("/v1/invitations/accept", json=body | {"token": second["token"]}), 404)


async def test_many_join_at_once(world: World) -> None:
    ada = await world.owner()

    people = await asyncio.gather(*(world.member(ada) for _ in range(12)))

    members = (await ada("GET", "/v1/org/members")).json()["members"]
    assert {each["id"] for each in members} == {ada.id, *(person.id for person in people)}
    problem(await ada("POST", "/v1/org/invitations", json={"email": people[0].email}), 409, field="email")


async def test_pages_of_members_show_each_once(world: World) -> None:
    ada = await world.owner()
    people = {ada.id} | {(await world.member(ada)).id for _ in range(4)}

    seen: list[str] = []
    after: str | None = ""
    while after is not None:
        page = (await ada("GET", "/v1/org/members", params={"limit": 2, "after": after})).json()
        seen += [each["id"] for each in page["members"]]
        after = page["next"]

    assert sorted(seen) == sorted(people)


async def test_a_new_role_counts_within_a_second_and_the_old_token_does_not(world: World) -> None:
    ada = await world.owner()
    grace = await world.member(ada, "admin")
    assert (await grace("GET", "/v1/org/invitations")).status_code == 200

    changed = await ada("PATCH", f"/v1/org/members/{grace.id}", json={"role": "viewer"})

    assert changed.json()["role"] == "viewer"
    await becomes(401, lambda: grace("GET", "/v1/org/invitations"))
    refreshed = (await world.anyone.post("/v1/refresh", json={"refresh_token": grace.refresh_token})).json()
    grace.token = refreshed["access_token"]
    assert (await grace("GET", "/v1/me")).json()["user"]["role"] == "viewer"
    problem(await grace("GET", "/v1/org/invitations"), 403)


async def test_a_removed_member_is_refused_everywhere_and_the_address_is_free(world: World) -> None:
    ada = await world.owner()
    grace = await world.member(ada)
    assert (await grace("GET", "/v1/analytics/summary", room="analytics")).status_code == 200

    assert (await ada("DELETE", f"/v1/org/members/{grace.id}")).status_code == 204

    await asyncio.gather(
        becomes(401, lambda: grace("GET", "/v1/me")),
        becomes(401, lambda: grace("GET", "/v1/analytics/summary", room="analytics")),
    )
    problem(await world.anyone.post("/v1/refresh", json={"refresh_token": grace.refresh_token}), 401)
    problem(await world.anyone.post("/v1/login", json={"email": grace.email, "password": PASSWORD}), 401)
    body = {"organisation": "Her own", "name": "Grace", "email": grace.email, "password": PASSWORD}
    assert (await world.anyone.post("/v1/signup", json=body)).status_code == 201


async def test_an_organisation_keeps_an_owner_and_only_owners_make_owners(world: World) -> None:
    ada = await world.owner()
    grace = await world.member(ada, "admin")

    problem(await ada("POST", "/v1/org/leave"), 409)
    problem(await ada("PATCH", f"/v1/org/members/{ada.id}", json={"role": "admin"}), 409)
    problem(await grace("PATCH", f"/v1/org/members/{grace.id}", json={"role": "owner"}), 403)
    problem(await grace("DELETE", f"/v1/org/members/{ada.id}"), 403)
    problem(await grace("POST", "/v1/org/invitations", json={"email": new_address(), "role": "owner"}), 403)
    assert (await ada("PATCH", f"/v1/org/members/{grace.id}", json={"role": "owner"})).status_code == 200

    assert (await ada("POST", "/v1/org/leave")).status_code == 204


async def test_two_owners_who_remove_each_other_at_once_leave_one(world: World) -> None:
    ada = await world.owner()
    grace = await world.member(ada, "owner")

    answers = await asyncio.gather(
        ada("DELETE", f"/v1/org/members/{grace.id}"), grace("DELETE", f"/v1/org/members/{ada.id}")
    )

    assert sorted(answer.status_code for answer in answers)[0] == 204
    assert sum(answer.status_code == 204 for answer in answers) == 1


@pytest.mark.ac("platform:R10.6")
async def test_one_organisation_sees_nothing_of_another(world: World) -> None:
    ada, eve = await world.owner(), await world.owner("Eve's")
    grace = await world.member(ada)

    problem(await eve("GET", f"/v1/users/{ada.id}"), 404)
    problem(await eve("PATCH", f"/v1/org/members/{grace.id}", json={"role": "viewer"}), 404)
    problem(await eve("DELETE", f"/v1/org/members/{grace.id}"), 404)
    assert [each["id"] for each in (await eve("GET", "/v1/org/members")).json()["members"]] == [eve.id]
    problem(await eve("GET", "/v1/me", headers={"isa-org": ada.org}), 403)
    problem(await eve("GET", "/v1/me", headers={"isa-user": ada.id}), 403)


@pytest.mark.ac("platform:R10.4")
async def test_a_program_logs_in_with_a_credential_within_its_scopes(world: World) -> None:
    ada = await world.owner()
    made = (
        await ada("POST", "/v1/credentials", json={"name": "Importer", "scopes": ["users.read", "tasks.write"]})
    ).json()
    client, secret = made["client_id"], made["client_secret"]

    by_form = await world.oauth(grant_type="client_credentials", client_id=client, client_secret=secret)
    by_json = await world.anyone.post(
        "/oauth/token",
        json={
            "grant_type": "client_credentials",
            "client_id": client,
            "client_secret": secret,
            "scope": "users.read",
        },
    )
    coded = base64.b64encode(f"{client}:{secret}".encode()).decode()
    by_basic = await world.anyone.post(
        "/oauth/token", data={"grant_type": "client_credentials"}, headers={"authorization": f"Basic {coded}"}
    )

    assert [answer.status_code for answer in (by_form, by_json, by_basic)] == [200, 200, 200]
    assert "refresh_token" not in by_form.json()
    assert by_json.json()["scope"] == "users.read"
    ada.token = by_form.json()["access_token"]
    assert (await ada("GET", "/v1/me")).json()["scopes"] == ["tasks.write", "users.read"]
    problem(await ada("POST", "/v1/org/invitations", json={"email": new_address()}), 403)
    problem(await ada("GET", "/v1/sessions"), 403)


async def test_a_credential_never_has_more_than_who_makes_it(world: World) -> None:
    ada = await world.owner()
    grace = await world.member(ada, "admin")

    problem(await grace("POST", "/v1/credentials", json={"name": "P", "scopes": ["tasks.admin"]}), 400, field="scopes")
    problem(await grace("POST", "/v1/credentials", json={"name": "P", "scopes": []}), 422, field="scopes")
    viewer = await world.member(ada, "viewer")
    problem(await viewer("POST", "/v1/credentials", json={"name": "P", "scopes": ["users.read"]}), 403)


async def test_a_revoked_credential_is_refused_within_a_second(world: World) -> None:
    ada = await world.owner()
    made = (await ada("POST", "/v1/credentials", json={"name": "P", "scopes": ["analytics.read"]})).json()
    form = {
        "grant_type": "client_credentials",
        "client_id": made["client_id"],
        "client_secret": made["client_secret"],
    }
    program = await world.log_in(ada)
    program.token = (await world.oauth(**form)).json()["access_token"]
    assert (await program("GET", "/v1/analytics/summary", room="analytics")).status_code == 200
    listed = (await ada("GET", "/v1/credentials")).json()["credentials"]
    assert [each["client_id"] for each in listed] == [made["client_id"]]
    assert "client_secret" not in listed[0]

    assert (await ada("DELETE", f"/v1/credentials/{made['client_id']}")).status_code == 204

    await becomes(401, lambda: program("GET", "/v1/analytics/summary", room="analytics"))
    refused = await world.oauth(**form)
    assert (refused.status_code, refused.json()["error"]) == (401, "invalid_client")


async def test_the_token_endpoint_speaks_oauth(world: World) -> None:
    ada = await world.owner()

    granted = await world.oauth(grant_type="password", username=ada.email, password=PASSWORD, scope="tasks.read")
    refreshed = await world.oauth(grant_type="refresh_token", refresh_token=granted.json()["refresh_token"])

    assert granted.json()["token_type"] == "Bearer"
    assert granted.headers["cache-control"] == "no-store"
    assert (granted.json()["scope"], refreshed.json()["scope"]) == ("tasks.read", "tasks.read")
    refusals = [
        ({"grant_type": "password", "username": ada.email, "password": "wrong password"}, 400, "invalid_grant"),
        ({"grant_type": "refresh_token", "refresh_token": "nothing"}, 400, "invalid_grant"),
        ({"grant_type": "client_credentials", "client_id": "x", "client_secret": "y"}, 401, "invalid_client"),
        ({"grant_type": "client_credentials", "client_id": "tasks", "client_secret": "y"}, 401, "invalid_client"),
        ({"grant_type": "client_credentials"}, 400, "invalid_request"),
        ({"grant_type": "implicit"}, 400, "unsupported_grant_type"),
        ({}, 400, "invalid_request"),
        (
            {"grant_type": "password", "username": ada.email, "password": PASSWORD, "scope": "fly"},
            400,
            "invalid_scope",
        ),
    ]
    for form, status, error in refusals:
        answer = await world.oauth(**form)
        assert (answer.status_code, answer.json()["error"]) == (status, error), form


async def test_our_own_workload_gets_a_token_by_its_secret(world: World, stack: Stack) -> None:
    secret = stack.secrets["workload-client-tasks"]

    answer = await world.oauth(grant_type="client_credentials", client_id="tasks", client_secret=secret)

    claims = jwt.decode(
        answer.json()["access_token"],
        stack.secrets["workload-signing-public"],
        algorithms=["EdDSA"],
        audience="isa",
        issuer="isa-users",
    )
    assert (claims["wl"], claims["sub"]) == ("tasks", "tasks")
    assert "org" not in claims


async def test_a_new_password_ends_every_other_session(world: World) -> None:
    ada = await world.owner()
    elsewhere = await world.log_in(ada)
    body = {"current_password": PASSWORD, "new_password": "an entirely new one 2"}

    problem(await ada("POST", "/v1/password", json=body | {"current_password": "wrong one here"}), 401)
    problem(await ada("POST", "/v1/password", json=body | {"new_password": "short"}), 422, field="new_password")
    assert (await ada("POST", "/v1/password", json=body)).status_code == 204

    await becomes(401, lambda: elsewhere("GET", "/v1/me"))
    assert (await ada("GET", "/v1/me")).status_code == 200
    problem(await world.anyone.post("/v1/login", json={"email": ada.email, "password": PASSWORD}), 401)
    await world.log_in(ada, body["new_password"])


async def test_a_forgotten_password_is_reset_by_a_letter_that_works_once(world: World, stack: Stack) -> None:
    ada = await world.owner()
    asked = await world.anyone.post("/v1/password/forgotten", json={"email": ada.email})
    unknown = await world.anyone.post("/v1/password/forgotten", json={"email": new_address()})
    assert (asked.status_code, asked.json()) == (unknown.status_code, unknown.json()) == (202, asked.json())

    token = await token_in_letter(stack.layout.data / "mail", ada.email, "reset")
    body = {"token": token, "password": "an entirely new one 3"}
    answers = await asyncio.gather(*(world.anyone.post("/v1/password/reset", json=body) for _ in range(2)))

    assert sorted(answer.status_code for answer in answers) == [204, 404]
    await becomes(401, lambda: ada("GET", "/v1/me"))
    await world.log_in(ada, body["password"])
    problem(await world.anyone.post("/v1/login", json={"email": ada.email, "password": PASSWORD}), 401)


async def token_in_letter(folder: Path, address: str, kind: str) -> str:
    """Return the token of the letter that an address gets."""
    for _ in range(100):
        for path in folder.glob("*.eml"):
            letter = message_from_bytes(path.read_bytes(), policy=email.policy.default)
            if letter["To"] == address and (found := re.search(rf"isa_{kind}_[\w-]+", letter.get_content())):
                return found[0]
        await asyncio.sleep(0.05)
    pytest.fail(f"no letter to {address}")


@pytest.mark.ac("phase-v:A2.1:1")
async def test_preferences_have_an_etag_and_a_stale_one_changes_nothing(world: World) -> None:
    ada = await world.owner()
    empty = await ada("GET", "/v1/me/preferences")
    assert (empty.json(), empty.headers["etag"]) == ({}, '"0"')

    first = await ada("PUT", "/v1/me/preferences", json={"theme": "dark", "hour": 7}, headers={"if-match": '"0"'})
    second = await ada("PATCH", "/v1/me/preferences", json={"hour": 8}, headers={"if-match": first.headers["etag"]})
    began = time.monotonic()
    stale = await ada("PUT", "/v1/me/preferences", json={"theme": "light"}, headers={"if-match": first.headers["etag"]})

    assert second.json() == {"theme": "dark", "hour": 8}
    problem(stale, 412)
    assert time.monotonic() - began < 2
    assert (await ada("GET", "/v1/me/preferences")).json() == {"theme": "dark", "hour": 8}


@pytest.mark.ac("phase-v:A2.1:2", "phase-v:A2.1:4")
async def test_preferences_change_together_or_not_at_all(world: World) -> None:
    ada = await world.owner()
    await ada("PUT", "/v1/me/preferences", json={"a": 1, "b": 2, "c": 3})

    batch = await ada(
        "POST", "/v1/me/preferences:batch", json={"put": {"d": {"deep": [1, None]}}, "remove": ["a", "b"]}
    )

    assert batch.json() == {"c": 3, "d": {"deep": [1, None]}}
    assert (await ada("GET", "/v1/me/preferences")).json() == batch.json()
    problem(await ada("POST", "/v1/me/preferences:batch", json={"put": {"e": 1}, "remove": ["e"]}), 400, field="e")
    problem(await ada("PATCH", "/v1/me/preferences", json={"Bad Name": 1}), 400, field="Bad Name")
    assert (await ada("PATCH", "/v1/me/preferences", json={"c": None})).json() == {"d": {"deep": [1, None]}}


async def test_writers_of_preferences_at_once_lose_nothing(world: World) -> None:
    ada = await world.owner()

    answers = await asyncio.gather(
        *(ada("PATCH", "/v1/me/preferences", json={f"k{i}": i}) for i in range(4)), return_exceptions=False
    )

    written = {f"k{i}": i for i, answer in enumerate(answers) if answer.status_code == 200}
    assert written
    assert all(answer.status_code in (200, 412) for answer in answers)
    assert (await ada("GET", "/v1/me/preferences")).json() == written


@pytest.mark.ac("phase-v:A2.1:3")
async def test_preferences_are_encrypted_where_they_lie_and_forgotten_with_their_user(
    world: World, stack: Stack
) -> None:
    ada = await world.owner()
    grace = await world.member(ada)
    await grace("PUT", "/v1/me/preferences", json={"secret": "a very particular wish"})

    def rows() -> list[tuple[str, str]]:
        with psycopg.connect(
            host="127.0.0.1",
            port=stack.layout.engine_port("postgres"),
            user="preferences_owner",
            password=stack.secrets["postgres-preferences-owner"],
            dbname="preferences",
        ) as connection:
            found = connection.execute(
                "SELECT key, convert_from(value, 'UTF8') FROM state WHERE key LIKE %s", (f"%{grace.id}%",)
            )
            return found.fetchall()

    kept = rows()
    assert {key.split("||")[-1] for key, _ in kept} == {
        f"{ada.org}:{grace.id}:secret",
        f"{ada.org}:{grace.id}:_index",
    }
    assert not any("wish" in value for _, value in kept)

    await ada("DELETE", f"/v1/org/members/{grace.id}")
    for _ in range(100):
        if not rows():
            break
        await asyncio.sleep(0.05)
    assert rows() == []


async def test_what_happened_is_published(world: World) -> None:
    ada = await world.owner()
    await world.member(ada)
    await world.log_in(ada)

    async def counted() -> dict[str, int]:
        topics = (await ada("GET", "/v1/analytics/topics", room="analytics")).json()["topics"]
        return {each["topic"]: each["number"] for each in topics}

    for _ in range(100):
        found = await counted()
        if (found["user.registered"], found["user.authenticated"]) == (2, 3):
            return
        await asyncio.sleep(0.05)
    pytest.fail(f"counted {found}")


@pytest.mark.ac("platform:R9.3")
async def test_keys_belong_to_no_organisation(world: World) -> None:
    ada = await world.owner()

    problem(await ada("POST", "/v1/keys/rotate", json={}), 403)
    problem(await world.anyone.post("/v1/keys/rotate", json={}), 401)


@pytest.mark.ac("platform:R9.2", "platform:R10.2")
async def test_a_rotation_adds_a_key_and_refuses_nobody(world: World, stack: Stack) -> None:
    ada = await world.owner()
    before = (await world.anyone.get("/.well-known/jwks.json")).json()["keys"]
    tokens = json.loads((stack.layout.run / "tokens.json").read_text())["users"]

    forged = await world.anyone.post("/job/rotate-keys", headers={"dapr-api-token": "guessed"})
    done = await world.anyone.post("/job/rotate-keys", headers={"dapr-api-token": tokens["APP_API_TOKEN"]})

    assert (forged.status_code, done.status_code) == (403, 200)
    after = (await world.anyone.get("/.well-known/jwks.json")).json()["keys"]
    assert len(after) == len(before) + 1
    assert [key["kid"] for key in after][:-1] == [key["kid"] for key in before]
    assert (await ada("GET", "/v1/me")).status_code == 200
    assert (await (await world.log_in(ada))("GET", "/v1/analytics/summary", room="analytics")).status_code == 200


async def test_a_suspended_member_is_refused_everywhere_until_the_suspension_is_lifted(world: World) -> None:
    ada = await world.owner()
    grace, admin = await world.member(ada), await world.member(ada, role="admin")
    path = f"/v1/org/members/{grace.id}/suspension"

    suspended = await ada("PUT", path)
    assert suspended.json()["suspended_at"], suspended.text
    assert (await ada("PUT", path)).json() == suspended.json()
    for room, asked in (("users", "/v1/me"), ("tasks", "/v1/tasks"), ("analytics", "/v1/analytics/summary")):
        await becomes(403, lambda asked=asked, room=room: grace("GET", asked, room=room))
    login = {"email": grace.email, "password": PASSWORD}
    problem(await world.anyone.post("/v1/login", json=login), 403)
    problem(await world.anyone.post("/v1/refresh", json={"refresh_token": grace.refresh_token}), 403)
    assert (await ada("PATCH", f"/v1/org/members/{grace.id}", json={"role": "viewer"})).status_code == 200
    await becomes(403, lambda: grace("GET", "/v1/me"))

    assert (await admin("DELETE", path)).json()["suspended_at"] is None
    again = await world.log_in(grace)
    await becomes(200, lambda: again("GET", "/v1/me"))
    assert (await world.anyone.post("/v1/refresh", json={"refresh_token": grace.refresh_token})).status_code == 200


async def test_who_may_not_suspend_whom_is_told(world: World) -> None:
    ada = await world.owner()
    admin, grace = await world.member(ada, role="admin"), await world.member(ada)

    problem(await ada("PUT", f"/v1/org/members/{ada.id}/suspension"), 409)
    problem(await admin("PUT", f"/v1/org/members/{ada.id}/suspension"), 403)
    problem(await grace("PUT", f"/v1/org/members/{admin.id}/suspension"), 403)
    problem(await ada("PUT", "/v1/org/members/user-nobody/suspension"), 404)
