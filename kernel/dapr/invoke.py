"""Service invocation over HTTP: other rooms by app-id, with our own token, acting for a caller."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import httpx

from isa_common import (
    Aborted,
    Code,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    IsaError,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
)
from isa_common.errors import error_class
from kernel import telemetry
from kernel.caller import Caller

CLASSES: dict[int, type[IsaError]] = {
    400: InvalidArgument,
    401: Unauthenticated,
    403: PermissionDenied,
    404: NotFound,
    409: Aborted,
    412: FailedPrecondition,
    422: InvalidArgument,
    429: ResourceExhausted,
    503: Unavailable,
    504: DeadlineExceeded,
}


class Invoke:
    """Calls other rooms by their sidecars."""

    def __init__(self, *, base_url: str, api_token: str, token: Callable[[], Awaitable[str]]) -> None:
        headers = {"dapr-api-token": api_token} if api_token else {}
        self._client = httpx.AsyncClient(base_url=base_url, headers=headers, timeout=10.0)
        self._token = token

    async def get(self, app_id: str, path: str, *, caller: Caller | None = None, anonymous: bool = False) -> Any:
        """Return the JSON that a GET of another room's path answers."""
        return await self.request("GET", app_id, path, caller=caller, anonymous=anonymous)

    async def post(
        self, app_id: str, path: str, *, json: object = None, caller: Caller | None = None, anonymous: bool = False
    ) -> Any:
        """Return the JSON that a POST to another room's path answers."""
        return await self.request("POST", app_id, path, json=json, caller=caller, anonymous=anonymous)

    async def request(
        self,
        method: str,
        app_id: str,
        path: str,
        *,
        json: object = None,
        caller: Caller | None = None,
        anonymous: bool = False,
    ) -> Any:
        """Return the JSON of an answer; one of our errors, by its status, when it is none."""
        headers = telemetry.outgoing()
        if not anonymous:
            headers["authorization"] = f"Bearer {await self._token()}"
        if caller:
            headers |= {name: value for name, value in (("isa-org", caller.org), ("isa-user", caller.user)) if value}
        try:
            response = await self._client.request(
                method, f"/v1.0/invoke/{app_id}/method{path}", json=json, headers=headers
            )
        except httpx.TimeoutException as error:
            raise DeadlineExceeded(f"{app_id} did not answer in time.") from error
        except httpx.HTTPError as error:
            raise Unavailable(f"{app_id} is not reached.") from error
        if response.is_success:
            return response.json() if response.content else None
        raise self._error(app_id, response)

    def _error(self, app_id: str, response: httpx.Response) -> IsaError:
        """Our error for an answer: what the room itself says it is, else what its status stands for."""
        cls = CLASSES.get(response.status_code, Unavailable if response.status_code >= 500 else Internal)
        problem: Mapping[str, object] = {}
        with contextlib.suppress(ValueError):  # a proxy may answer no JSON
            parsed = response.json()
            problem = parsed if isinstance(parsed, dict) else {}
        if "errorCode" in problem:  # daprd itself could not reach the room
            return Unavailable(f"{app_id} is not reached.")
        code, reason, details = problem.get("code"), problem.get("reason"), problem.get("details")
        if isinstance(code, str) and code in Code.__members__ and isinstance(reason, str):
            cls = error_class(Code[code], reason)
        error = cls(str(problem.get("detail", f"{app_id} answered {response.status_code}.")))
        if isinstance(reason, str):
            error.reason = reason
        if isinstance(details, dict):
            error.details = {str(name): str(value) for name, value in details.items()}
        return error

    async def close(self) -> None:
        """Close its connections."""
        await self._client.aclose()
