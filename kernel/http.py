"""HTTP rooms: FastAPI behind the kernel's chain, with problem+json for whatever goes wrong.

The chain runs before a body is read, so nobody learns what a field should look like without being allowed to call.
"""

from __future__ import annotations

import functools
import hmac
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Annotated, Any, get_type_hints

import orjson
from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException
from starlette.routing import Route as StarletteRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from isa_common import (
    Aborted,
    AlreadyExists,
    Code,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    IsaError,
    NotFound,
    PermissionDenied,
    PreconditionFailed,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)
from kernel import telemetry
from kernel.call import CURRENT, Call
from kernel.caller import Caller
from kernel.chain import Chain, correlation_of
from kernel.doors import Route, doors_of

PROBLEM = "application/problem+json"
CLIENT_CLOSED = 499
STATUS: dict[type[IsaError], int] = {
    InvalidArgument: 400,
    Unauthenticated: 401,
    PermissionDenied: 403,
    NotFound: 404,
    AlreadyExists: 409,
    Aborted: 409,
    PreconditionFailed: 412,
    FailedPrecondition: 409,
    ResourceExhausted: 429,
    Unimplemented: 501,
    Unavailable: 503,
    DeadlineExceeded: 504,
}


class Body(BaseModel):
    """What comes in. A field that nobody knows is refused."""

    model_config = ConfigDict(extra="forbid")


class View(BaseModel):
    """What goes out."""

    model_config = ConfigDict(from_attributes=True)


class InvalidRequest(InvalidArgument):
    """The request does not have the shape that this route takes; `errors` says where."""

    def __init__(self, errors: list[dict[str, str]]) -> None:
        first = errors[0]
        super().__init__(f"{first['field']}: {first['message']}", field=first["field"])
        self.errors = errors


class TooLarge(InvalidArgument):
    """The body is larger than this route takes."""


class NotServed(Unimplemented):
    """This path takes other methods."""


def status_of(error: IsaError) -> int:
    """Return the HTTP status of an error."""
    if isinstance(error, InvalidRequest):
        return 422
    if isinstance(error, TooLarge):
        return 413
    if isinstance(error, NotServed):
        return 405
    if error.code is Code.CANCELLED:
        return CLIENT_CLOSED
    return next((STATUS[cls] for cls in type(error).__mro__ if cls in STATUS), 500)


def problem(error: IsaError) -> Response:
    """Return an error as RFC 9457 has it."""
    status = status_of(error)
    errors = error.errors if isinstance(error, InvalidRequest) else []
    if not errors and error.field:
        errors = [{"field": error.field, "message": error.message}]
    body = {
        "type": f"urn:isa:problem:{error.reason.lower().replace('_', '-')}",
        "title": (type(error).__doc__ or "").partition("\n")[0].rstrip("."),
        "status": status,
        "detail": error.message,
        "code": error.code.name,
        "reason": error.reason,
        "request_id": error.request_id,
        **({"errors": errors} if errors else {}),
        **({"details": error.details} if error.details else {}),
    }
    headers = {"isa-correlation-id": error.request_id}
    if status == 401:
        headers["www-authenticate"] = f'Bearer realm="isa", error="invalid_token", error_description="{error.message}"'
    if error.retry_after:
        headers["retry-after"] = str(max(1, round(error.retry_after.total_seconds())))
    return Response(orjson.dumps(body), status, headers, PROBLEM)


def _path(location: tuple[int | str, ...]) -> str:
    names = location[1:] if location and location[0] in ("body", "query", "path", "header") else location
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in names)
    return text.removeprefix(".") or "body"


def _field(error: Mapping[str, Any]) -> str:
    """Return the field that is wrong; what is no JSON has none, only a position."""
    return "body" if error["type"] == "json_invalid" else _path(tuple(error["loc"]))


def _advice(error: Mapping[str, Any]) -> str:
    match error["type"]:
        case "missing":
            return "This field is needed."
        case "extra_forbidden":
            return "There is no such field; leave it out or correct its name."
        case "json_invalid":
            return f"The body is not valid JSON: {error.get('ctx', {}).get('error', '')}."
    return f"{error['msg'].removeprefix('Value error, ')}.".replace("..", ".")


def invalid_request(error: RequestValidationError) -> InvalidRequest:
    """Return what validation found, a line a field, without what was sent."""
    return InvalidRequest([{"field": _field(item), "message": _advice(item)} for item in error.errors()])


class Limited:
    """Refuses bodies that are larger than their route takes, whatever their Content-Length says."""

    def __init__(self, app: ASGIApp, *, limit_of: Callable[[Scope], int]) -> None:
        self._app = app
        self._limit_of = limit_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, counting what it brings."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._limit_of(scope)
        refusal = TooLarge(
            f"The body is over the {limit} bytes that are taken here. Send less, or in parts.",
            field="body",
            limit=limit,
        )
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if length.isdigit() and int(length) > limit:
            refusal.request_id = correlation_of({k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]})
            await problem(refusal)(scope, receive, send)
            return
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > limit:
                raise refusal
            return message

        await self._app(scope, counted, send)


async def _current_caller() -> Caller:
    call = CURRENT.get()
    assert call is not None and call.caller is not None
    return call.caller


def _endpoint(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Return a handler as FastAPI wants it: the caller comes from the chain, not from the request."""
    hints = get_type_hints(method, include_extras=True)
    signature = inspect.signature(method)
    parameters = [
        parameter.replace(
            annotation=Annotated[Caller, Depends(_current_caller)]
            if parameter.name == "caller"
            else hints.get(parameter.name, parameter.annotation)
        )
        for parameter in signature.parameters.values()
    ]

    answer = hints.get("return", signature.return_annotation)

    @functools.wraps(method)
    async def endpoint(*arguments: Any, **named: Any) -> Any:
        return await method(*arguments, **named)

    endpoint.__signature__ = signature.replace(  # type: ignore[attr-defined]  # inspect reads it
        parameters=[item.replace(kind=inspect.Parameter.KEYWORD_ONLY) for item in parameters],
        return_annotation=None if answer is type(None) else answer,
    )
    del endpoint.__wrapped__
    return endpoint


def _route_class(chain: Chain, route: Route) -> type[APIRoute]:
    class RuledRoute(APIRoute):
        """A route inside the chain."""

        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            inner = super().get_route_handler()
            name = f"{route.method} {route.path}"

            async def handler(request: Request) -> Response:
                call = Call(name=name, rule=route.rule, metadata=dict(request.headers), transport="http")
                call.resources += [str(value) for value in request.path_params.values()]
                try:
                    async with chain(call):
                        try:
                            response = await inner(request)
                        except RequestValidationError as error:
                            raise invalid_request(error) from None
                        except HTTPException as error:
                            raise _unread(error) from None
                except IsaError as error:
                    return problem(error)
                response.headers["isa-correlation-id"] = call.correlation_id
                return response

            return handler

    return RuledRoute


class Health:
    """Whether this process may be given work. `is_started` is what daprd asks, `is_ready` what a load balancer does."""

    def __init__(self) -> None:
        self.is_started = False
        self.is_ready = False


def operations(app: FastAPI, health: Health, *, token: str) -> None:
    """Add what operators and probes ask: health, metrics, and the log level."""

    def answer(is_good: bool) -> Response:
        return Response(b"ok" if is_good else b"starting or draining", 200 if is_good else 503, media_type="text/plain")

    @app.get("/healthz", include_in_schema=False)
    async def healthz() -> Response:
        return answer(health.is_started)

    @app.get("/readyz", include_in_schema=False)
    async def readyz() -> Response:
        return answer(health.is_ready)

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    @app.api_route("/-/log-level", methods=["GET", "PUT"], include_in_schema=False)
    async def log_level(request: Request) -> Response:
        if not is_sidecar(request, token):
            return told(request, PermissionDenied("This needs the app's API token in the header dapr-api-token."))
        if request.method == "PUT":
            try:
                telemetry.LEVEL.set((await request.body()).decode(errors="replace").strip())
            except ValueError as error:
                return told(request, InvalidArgument(str(error), field="body"))
            telemetry.log.warning("log.level_changed", level=telemetry.LEVEL.name)
        return Response(telemetry.LEVEL.name, media_type="text/plain")


def is_sidecar(request: Request, token: str) -> bool:
    """Tell whether a callback shows the app's API token, and did not come from another app through a sidecar."""
    if not token or "dapr-caller-app-id" in request.headers:
        return False
    return hmac.compare_digest(request.headers.get("dapr-api-token", "").encode(), token.encode())


def http_app(handlers: object, *, title: str, chain: Chain, max_body: int) -> FastAPI:
    """Return the FastAPI app of a room's routes."""
    app = FastAPI(
        title=f"isA Cloud: {title}",
        description=inspect.getdoc(handlers) or "",
        redoc_url=None,
        version="1",
        telemetry={"tracing": False, "metrics": False, "logs": False},  # the chain has all three
    )
    limits: list[tuple[str, Any, int]] = []
    bearer = HTTPBearer(auto_error=False, description="A token of the users service.")
    for door, method in doors_of(handlers):
        if not isinstance(door, Route):
            continue
        route = _route_class(chain, door)(
            door.path,
            _endpoint(method),
            methods=[door.method],
            status_code=door.status,
            summary=(method.__doc__ or "").partition("\n")[0],
            dependencies=[] if door.rule.anonymous else [Depends(bearer)],
            responses={"4XX": {"description": "Refused.", "content": {PROBLEM: {}}}},
            **door.options,
        )
        app.router.routes.append(route)
        if door.max_body:
            limits.append((door.method, route.path_regex, door.max_body))

    def limit_of(scope: Scope) -> int:
        if scope["path"].startswith(("/events/", "/job/")):
            return 16 << 20
        for method, pattern, limit in limits:
            if scope["method"] == method and pattern.match(scope["path"]):
                return limit
        return max_body

    app.add_middleware(Limited, limit_of=limit_of)
    app.add_exception_handler(HTTPException, _unknown)
    app.add_exception_handler(IsaError, _refused)
    return app


def _unread(error: HTTPException) -> IsaError:
    """Return why FastAPI could not read a request: it wraps what its body raised."""
    if isinstance(error.__cause__, IsaError):
        return error.__cause__
    if error.status_code == 400:
        return InvalidArgument("The body cannot be read: is it what its content-type says, in UTF-8?", field="body")
    return Internal("Something went wrong on our side. The request id finds it in our logs.")


async def _unknown(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code != 405:
        return told(request, NotFound("There is no such path; /docs lists what there is.", path=request.url.path))
    served: set[str] = set()
    for route in request.app.routes:
        if isinstance(route, StarletteRoute) and route.path_regex.match(request.url.path):
            served |= route.methods or set()
    response = told(request, NotServed(f"{request.method} is not served here.", path=request.url.path))
    response.headers["allow"] = ", ".join(sorted(served))
    return response


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, IsaError)
    return told(request, error)


def told(request: Request, error: IsaError) -> Response:
    """Return the problem of a request that went through no chain."""
    error.request_id = error.request_id or correlation_of(request.headers)
    return problem(error)
