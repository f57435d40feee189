"""E-mail by Dapr's SMTP binding: the component that we ship, a real sidecar, and a mail server that keeps its mail."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import message_from_bytes
from email.headerregistry import Address
from email.policy import default
from pathlib import Path

import pytest
import pytest_asyncio

from isa_common import IsaError
from kernel.dapr.bindings import Bindings
from kernel.dapr.sidecar import Sidecar
from runtime.layout import CHECKOUT
from services.notifications.domain.letters import Letter
from services.notifications.repository.post import Post
from tests.conftest import Stack
from tests.integration.private import free_port

LETTER = Letter(
    message_id="<delivery-abc@isa.example>",
    to_name="Olga Owner",
    to_address="olga@example.org",
    subject="Reminder: Grüße an <alle>",
    lines=("Hello Olga Owner,", "", "  Grüße an <alle> & Bäume"),
)


@dataclass
class MailServer:
    """As much SMTP as a sender needs; it can refuse."""

    mails: list[bytes] = field(default_factory=list)
    recipients: list[str] = field(default_factory=list)
    is_refusing: bool = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example.org\r\n")
        while line := (await reader.readline()).decode().strip():
            verb = line.split()[0].upper()
            if verb == "EHLO":
                writer.write(b"250-mail.example.org\r\n250 8BITMIME\r\n")
            elif verb == "RCPT":
                self.recipients.append(line)
                writer.write(b"451 try again later\r\n" if self.is_refusing else b"250 ok\r\n")
            elif verb == "DATA":
                writer.write(b"354 go on\r\n")
                self.mails.append((await reader.readuntil(b"\r\n.\r\n"))[:-3])
                writer.write(b"250 taken\r\n")
            elif verb == "QUIT":
                writer.write(b"221 bye\r\n")
                break
            else:
                writer.write(b"250 ok\r\n")
        writer.close()


@pytest_asyncio.fixture
async def mail_server() -> AsyncIterator[MailServer]:
    """A mail server; its port is in `SMTP_PORT` of the sidecar."""
    yield MailServer()


@pytest_asyncio.fixture
async def sidecar(stack: Stack, mail_server: MailServer, tmp_path: Path) -> AsyncIterator[Sidecar]:
    """A sidecar of its own that has our SMTP component, and nothing else but its secrets."""
    server = await asyncio.start_server(mail_server.serve, "127.0.0.1", 0)
    components = tmp_path / "components"
    components.mkdir()
    shutil.copy(CHECKOUT / "components" / "optional" / "email.yaml", components)
    shutil.copy(CHECKOUT / "components" / "local" / "secrets.yaml", components)
    secrets = tmp_path / "secrets.json"
    secrets.write_text(json.dumps({"smtp-password": "not empty"}))
    names = tmp_path / "config.yaml"
    names.write_text(
        "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: mail}\nspec:\n  nameResolution:\n"
        f"    component: sqlite\n    version: v1\n    configuration: {{connectionString: '{tmp_path}/names.db'}}\n"
    )
    (daprd,) = (stack.layout.cache / "engines").glob("dapr-*/bin/daprd")
    http, grpc, internal, metrics = (free_port() for _ in range(4))
    process = await asyncio.create_subprocess_exec(
        str(daprd), "--app-id", "notifications", "--resources-path", str(components), "--config", str(names),
        "--dapr-http-port", str(http), "--dapr-grpc-port", str(grpc), "--dapr-internal-grpc-port", str(internal),
        "--metrics-port", str(metrics), "--dapr-listen-addresses", "127.0.0.1",
        "--dapr-internal-grpc-listen-address", "127.0.0.1", "--placement-host-address", "",
        "--scheduler-host-address", "", "--log-level", "error",
        env={
            **os.environ,
            "ISA_SECRETS_FILE": str(secrets),
            "SMTP_HOST": "127.0.0.1",
            "SMTP_PORT": str(server.sockets[0].getsockname()[1]),
            "SMTP_USER": "isa",
            "SMTP_FROM": "fallback@isa.example",
        },
    )  # fmt: skip
    sidecar = Sidecar(host="127.0.0.1", grpc_port=grpc, http_port=http, token="")
    try:
        await sidecar.wait(at_most=60)
        yield sidecar
    finally:
        await sidecar.close()
        process.terminate()
        await process.wait()
        server.close()


def post(sidecar: Sidecar, sink: Path) -> Post:
    return Post(
        Bindings(sidecar),
        binding="email",
        sink=sink,
        sender=Address("isA Cloud", addr_spec="isa@isa.example"),
        clock=lambda: datetime.now(UTC),
    )


async def test_a_letter_reaches_a_mail_server_by_the_component_that_we_ship(
    sidecar: Sidecar, mail_server: MailServer, tmp_path: Path
) -> None:
    await post(sidecar, tmp_path / "sink").send(LETTER)

    (content,) = mail_server.mails
    mail = message_from_bytes(content, policy=default)
    body = mail.get_body(("html",))
    assert body is not None
    assert mail["To"].addresses[0].addr_spec == "olga@example.org"
    assert mail["From"].addresses[0].addr_spec == "isa@isa.example"
    assert mail["Subject"] == "Reminder: Grüße an <alle>"
    assert "Grüße an &lt;alle&gt; &amp; Bäume" in body.get_content()
    assert "delivery-abc@isa.example" in body.get_content()
    assert not (tmp_path / "sink").exists()


async def test_a_mail_server_that_refuses_is_an_error_that_is_tried_again(
    sidecar: Sidecar, mail_server: MailServer, tmp_path: Path
) -> None:
    mail_server.is_refusing = True

    with pytest.raises(IsaError):
        await post(sidecar, tmp_path / "sink").send(LETTER)

    assert mail_server.mails == []
