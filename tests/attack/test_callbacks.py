"""What only a service's own sidecar may call, called by everybody else: events, jobs, and the sidecars themselves."""

from __future__ import annotations

import base64
import json

import grpc
import httpx
import pytest
import yaml
from dapr.proto.runtime.v1 import appcallback_pb2

from runtime.layout import CHECKOUT
from runtime.processes import App, load_apps
from tests.conftest import Stack

APPS = load_apps()
CALLBACK = "/dapr.proto.runtime.v1.AppCallback/OnBulkTopicEvent"
FORGED = json.dumps({"specversion": "1.0", "type": "control.changed"}).encode()


def topics(app: App) -> list[str]:
    """What an app subscribes to."""
    declared = yaml.safe_load_all((CHECKOUT / f"components/local/subscriptions/{app.name}.yaml").read_text())
    return [each["spec"]["topic"] for each in declared]


def tokens(stack: Stack) -> dict[str, dict[str, str]]:
    """The API tokens of every app and its sidecar, as only this machine's user can read them."""
    found: dict[str, dict[str, str]] = json.loads((stack.layout.run / "tokens.json").read_text())
    return found


@pytest.mark.parametrize("app", [app for app in APPS if not app.is_grpc], ids=lambda app: app.name)
async def test_a_service_takes_events_and_jobs_from_its_own_sidecar_alone(app: App, stack: Stack) -> None:
    known = tokens(stack)
    other = next(name for name in known if name != app.name)
    entry = {"entryId": "1", "event": base64.b64encode(FORGED).decode(), "metadata": {}, "contentType": "text/plain"}
    body = {"entries": [entry]}
    refused: list[dict[str, str]] = [
        {},
        {"dapr-api-token": ""},
        {"dapr-api-token": "guessed"},
        {"dapr-api-token": known[app.name]["DAPR_API_TOKEN"]},
        {"dapr-api-token": known[other]["APP_API_TOKEN"]},
        {"dapr-api-token": known[app.name]["APP_API_TOKEN"], "dapr-caller-app-id": app.name},
    ]
    async with httpx.AsyncClient(base_url=stack.http[app.name], timeout=10) as client:
        for path in [f"/events/{topic}" for topic in topics(app)] + ["/job/kernel-cleanup", "/job/anything"]:
            for headers in refused:
                answer = await client.post(path, json=body, headers=headers)
                assert answer.status_code in (401, 403), f"{path} with {headers}: {answer.status_code}"


@pytest.mark.parametrize("app", [app for app in APPS if not app.is_grpc], ids=lambda app: app.name)
async def test_another_services_sidecar_does_not_pass_events_and_jobs_on(app: App, stack: Stack) -> None:
    other = next(each for each in APPS if each.name != app.name)
    sidecar = f"http://127.0.0.1:{stack.layout.port(other.values['daprHTTPPort'])}"
    headers = {"dapr-api-token": tokens(stack)[other.name]["DAPR_API_TOKEN"]}
    async with httpx.AsyncClient(base_url=sidecar, timeout=10, headers=headers) as client:
        for path in (*(f"events/{topic}" for topic in topics(app)), "job/kernel-cleanup"):
            answer = await client.post(f"/v1.0/invoke/{app.name}/method/{path}", json={"entries": []})
            assert answer.status_code in (401, 403), f"{path}: {answer.status_code} {answer.text}"


@pytest.mark.parametrize("app", [app for app in APPS if app.is_grpc], ids=lambda app: app.name)
async def test_an_adapter_takes_events_from_its_own_sidecar_alone(app: App, stack: Stack) -> None:
    known = tokens(stack)
    request = appcallback_pb2.TopicEventBulkRequest(
        topic="control.changed",
        entries=[appcallback_pb2.TopicEventBulkRequestEntry(entry_id="1", bytes=FORGED)],
    )
    own = known[app.name]
    attempts = [
        (app.values["appPort"], {}),
        (app.values["appPort"], {"dapr-api-token": "guessed"}),
        (app.values["appPort"], {"dapr-api-token": own["DAPR_API_TOKEN"]}),
        (app.values["appPort"], {"dapr-api-token": own["APP_API_TOKEN"], "dapr-caller-app-id": "users"}),
        # By the sidecar of another app, which may speak to it.
        (APPS[0].values["daprGRPCPort"], {"dapr-api-token": known[APPS[0].name]["DAPR_API_TOKEN"]}),
    ]
    for port, metadata in attempts:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{stack.layout.port(port)}") as channel:
            call = channel.unary_unary(CALLBACK, request_serializer=type(request).SerializeToString)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(request, metadata=(*metadata.items(), ("dapr-app-id", app.name)), timeout=10)
        assert caught.value.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED), metadata


@pytest.mark.parametrize("app", APPS, ids=lambda app: app.name)
async def test_a_sidecar_opens_to_its_own_app_alone(app: App, stack: Stack) -> None:
    other = next(name for name in tokens(stack) if name != app.name)
    paths = ("/v1.0/metadata", "/v1.0/secrets/secrets/bulk", "/v1.0/invoke/users/method/.well-known/jwks.json")
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{stack.layout.port(app.values['daprHTTPPort'])}", timeout=10
    ) as client:
        for token in ("", "guessed", tokens(stack)[other]["DAPR_API_TOKEN"]):
            for path in paths:
                answer = await client.get(path, headers={"dapr-api-token": token} if token else {})
                assert answer.status_code == 401, f"{path}: {answer.status_code}"
            answer = await client.post("/v1.0/publish/control/control.changed", headers={"dapr-api-token": token})
            assert answer.status_code == 401
