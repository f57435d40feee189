"""The token endpoint: what it reads, and in whose words it refuses."""

from __future__ import annotations

import base64
import json
from datetime import timedelta

import pytest
from starlette.requests import Request

from isa_common import InvalidArgument, Unavailable
from services.users.domain.access import SessionEnded, TooManyAttempts, WrongClient, WrongPassword
from services.users.handlers.oauth import OAuthError, parameters, refusal

FORM = "application/x-www-form-urlencoded"


def request(body: bytes, content_type: str = FORM, authorization: str = "") -> Request:
    headers = [(b"content-type", content_type.encode()), (b"authorization", authorization.encode())]

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": body, "more_body": False}

    return Request({"type": "http", "method": "POST", "path": "/oauth/token", "headers": headers}, receive)


async def test_a_form_and_json_say_the_same() -> None:
    form = await parameters(request(b"grant_type=password&username=a%40b.cd&password=x+y"))
    document = await parameters(
        request(
            b'{"grant_type": "password", "username": "a@b.cd", "password": "x y"}', "application/json; charset=utf-8"
        )
    )

    assert form == document == {"grant_type": "password", "username": "a@b.cd", "password": "x y"}


async def test_a_client_may_show_itself_by_basic_authentication() -> None:
    coded = base64.b64encode(b"client-a:s%3Acret").decode()

    found = await parameters(request(b"grant_type=client_credentials", authorization=f"Basic {coded}"))

    assert (found["client_id"], found["client_secret"]) == ("client-a", "s:cret")


@pytest.mark.parametrize(
    ("body", "kind", "authorization"),
    [
        (b"a=1&a=2", FORM, ""),
        (b"[]", "application/json", ""),
        (b'{"a": 1}', "application/json", ""),
        (b"{", "application/json", ""),
        (b"\xff=1", FORM, ""),
        (b"client_secret=x", FORM, "Basic " + base64.b64encode(b"a:b").decode()),
        (b"", FORM, "Basic !!!"),
    ],
)
async def test_an_unreadable_request_is_refused(body: bytes, kind: str, authorization: str) -> None:
    with pytest.raises(OAuthError):
        await parameters(request(body, kind, authorization))


@pytest.mark.parametrize(
    ("error", "name", "status"),
    [
        (WrongPassword("no"), "invalid_grant", 400),
        (SessionEnded("no"), "invalid_grant", 400),
        (WrongClient("no"), "invalid_client", 401),
        (InvalidArgument("no", field="scopes"), "invalid_scope", 400),
        (OAuthError("unsupported_grant_type", "no"), "unsupported_grant_type", 400),
        (TooManyAttempts("no", retry_after=timedelta(seconds=9)), "temporarily_unavailable", 429),
        (Unavailable("no"), "temporarily_unavailable", 503),
    ],
)
def test_refusals_are_said_in_oauths_words(error: Exception, name: str, status: int) -> None:
    response = refusal(error)

    assert response.status_code == status
    assert json.loads(bytes(response.body)) == {"error": name, "error_description": "no"}
    assert response.headers["cache-control"] == "no-store"
    assert ("www-authenticate" in response.headers) == (status == 401)
    assert response.headers.get("retry-after") == ("9" if status == 429 else None)
