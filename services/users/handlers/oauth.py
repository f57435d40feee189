"""OAuth 2: one token endpoint for people, their programs, and our own workloads (RFC 6749)."""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import time
from urllib.parse import parse_qsl, unquote_plus

from fastapi import Request
from starlette.responses import JSONResponse

from isa_common import (
    FailedPrecondition,
    InvalidArgument,
    IsaError,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
)
from kernel import get, log, post
from kernel.caller import policy
from services.users.domain.access import SessionEnded, WrongClient, WrongPassword
from services.users.handlers.access import AccessRoutes
from services.users.handlers.credentials import CredentialRoutes

GRANTS = ("password", "refresh_token", "client_credentials")
MOST_BYTES = 16 << 10
SECRET_SIGNING = "workload-signing-private"  # noqa: S105 -- a name
SECRET_CLIENT = "workload-client-{app_id}"  # noqa: S105 -- a name
SECRET_KEPT = 300.0
"""Seconds that a workload's secret is remembered; a wrong one is compared with a fresh read."""


DESCRIBED = {
    "requestBody": {
        "required": True,
        "content": {
            kind: {
                "schema": {
                    "type": "object",
                    "required": ["grant_type"],
                    "properties": {
                        "grant_type": {"type": "string", "enum": list(GRANTS)},
                        **{
                            name: {"type": "string"}
                            for name in ("username", "password", "refresh_token", "client_id", "client_secret", "scope")
                        },
                    },
                }
            }
            for kind in ("application/x-www-form-urlencoded", "application/json")
        },
    }
}
"""What the route reads by itself, for its OpenAPI description."""


class OAuthError(Exception):
    """A refusal in OAuth's words."""

    def __init__(self, error: str, description: str, *, status: int = 400) -> None:
        super().__init__(description)
        self.error = error
        self.description = description
        self.status = status


async def parameters(request: Request) -> dict[str, str]:
    """Read a form or a JSON object of strings, and the client from basic authentication."""
    raw = await request.body()
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        if kind == "application/json":
            given = json.loads(raw)
            if not isinstance(given, dict) or not all(isinstance(value, str) for value in given.values()):
                raise OAuthError("invalid_request", "The body must be a JSON object of strings.")
            found: dict[str, str] = given
        else:
            pairs = parse_qsl(raw.decode(), keep_blank_values=True, max_num_fields=50)
            found = dict(pairs)
            if len(found) != len(pairs):
                raise OAuthError("invalid_request", "A parameter is there twice.")
    except (ValueError, UnicodeDecodeError):
        raise OAuthError("invalid_request", "The body is neither a form nor JSON.") from None
    scheme, _, coded = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        if "client_secret" in found:
            raise OAuthError("invalid_request", "Give the client's secret once: in the header or in the body.")
        try:
            name, _, secret = base64.b64decode(coded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise OAuthError("invalid_client", "The authorization header is not readable.", status=401) from None
        found |= {"client_id": unquote_plus(name), "client_secret": unquote_plus(secret)}
    return found


def needed(given: dict[str, str], name: str) -> str:
    """Return a parameter that must be there."""
    if not given.get(name):
        raise OAuthError("invalid_request", f"The parameter {name} is needed.")
    return given[name]


def refusal(error: Exception) -> JSONResponse:
    """Say a refusal in OAuth's words."""
    headers = {"cache-control": "no-store", "pragma": "no-cache"}
    match error:
        case OAuthError():
            name, text, status = error.error, error.description, error.status
        case WrongPassword() | SessionEnded():
            name, text, status = "invalid_grant", error.message, 400
        case WrongClient():
            name, text, status = "invalid_client", error.message, 401
        case InvalidArgument(field="scopes"):
            name, text, status = "invalid_scope", error.message, 400
        case ResourceExhausted():
            name, text, status = "temporarily_unavailable", error.message, 429
        case Unavailable():
            name, text, status = "temporarily_unavailable", error.message, 503
        case _:
            raise error
    if status == 401:
        headers["www-authenticate"] = 'Basic realm="isa"'
    if isinstance(error, IsaError) and error.retry_after:
        headers["retry-after"] = str(max(1, round(error.retry_after.total_seconds())))
    return JSONResponse({"error": name, "error_description": text}, status, headers)


class OAuthRoutes(AccessRoutes, CredentialRoutes):
    """Signing up and logging in, by our own routes and by OAuth 2."""

    _secrets: dict[str, tuple[str, float]]

    @post("/oauth/token", anonymous=True, max_body=MOST_BYTES, openapi_extra=DESCRIBED)
    async def token(self, request: Request) -> JSONResponse:
        """Issue tokens by the grants password, refresh_token and client_credentials; a form or JSON."""
        try:
            granted = await self._grant(request, await parameters(request))
        except (OAuthError, IsaError) as error:
            return refusal(error)
        return JSONResponse(granted, headers={"cache-control": "no-store", "pragma": "no-cache"})

    async def _grant(self, request: Request, given: dict[str, str]) -> dict[str, object]:
        scopes = tuple(given.get("scope", "").split())
        match needed(given, "grant_type"):
            case "password":
                _, tokens = await self.by_password(
                    request,
                    needed(given, "username"),
                    needed(given, "password"),
                    device=request.headers.get("user-agent"),
                    scopes=scopes,
                )
                return tokens.model_dump()
            case "refresh_token":
                return (await self.by_refresh_token(needed(given, "refresh_token"))).model_dump()
            case "client_credentials":
                client, secret = needed(given, "client_id"), needed(given, "client_secret")
                if client in policy()["workloads"]:
                    return self._issued(await self._workload(client, secret), ())
                async with self.desk.attempt(request, kind="client"):
                    return self._issued(*await self.by_client_secret(client, secret, scopes))
            case _:
                raise OAuthError("unsupported_grant_type", f"The grants are {', '.join(GRANTS)}.")

    def _issued(self, access_token: str, scopes: tuple[str, ...]) -> dict[str, object]:
        life = int(self.desk.issuer.life.total_seconds())
        issued = {"access_token": access_token, "token_type": "Bearer", "expires_in": life}
        return issued | ({"scope": " ".join(scopes)} if scopes else {})

    async def _workload(self, app_id: str, secret: str) -> str:
        """Return a token of one of our own programs, by the secret that only it and we can read."""
        desk = self.desk
        name = SECRET_CLIENT.format(app_id=app_id)
        for most_age in (SECRET_KEPT, 0.0):
            try:
                kept = await self._secret(name, most_age=most_age)
            except (NotFound, PermissionDenied, FailedPrecondition):
                break
            if kept and hmac.compare_digest(kept.encode(), secret.encode()):
                private = await self._secret(SECRET_SIGNING, most_age=SECRET_KEPT)
                return desk.issuer.workload(private, app_id=app_id, at=desk.parts.clock())
        log.warning("users.workload_refused", app_id=app_id)
        raise WrongClient("The client id or its secret is wrong.")

    async def _secret(self, name: str, *, most_age: float) -> str:
        """Return a secret that was read not longer ago than so many seconds, five at least."""
        known = self.secrets_kept.get(name)
        if known and time.monotonic() - known[1] < max(most_age, 5.0):
            return known[0]
        value = await self.desk.parts.secrets.get(name)
        self.secrets_kept[name] = (value, time.monotonic())
        return value

    @property
    def secrets_kept(self) -> dict[str, tuple[str, float]]:
        """Secrets of workloads, and when each was read."""
        if not hasattr(self, "_secrets"):
            self._secrets = {}
        return self._secrets

    @get("/.well-known/oauth-authorization-server", anonymous=True)
    async def metadata(self, request: Request) -> dict[str, object]:
        """Say where and how tokens are issued (RFC 8414)."""
        base = str(request.base_url).rstrip("/")
        return {
            "issuer": self.desk.issuer.name,
            "token_endpoint": f"{base}/oauth/token",
            "jwks_uri": f"{base}/.well-known/jwks.json",
            "grant_types_supported": list(GRANTS),
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
            "response_types_supported": [],
        }
