"""A short story over HTTP: what is accepted before a restart must be there after it, and count once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from isa_common import IsaError
from runtime.layout import CHECKOUT, Layout
from runtime.processes import app_address
from tests.belongings import ALL, Belongings
from tests.compose.engine import ComposeTestError

PATIENCE = 60.0
"""Seconds that an effect may take."""


@dataclass(kw_only=True)
class Story:
    """One organisation, its tasks, and what must be known of them."""

    port_base: int
    marker: str
    email: str = ""
    password: str = ""
    token: str = ""
    tasks: list[str] = field(default_factory=list)

    def address(self, app_id: str) -> str:
        """Where an app of the set is published."""
        return app_address(Layout(home=CHECKOUT, cache=CHECKOUT, port_base=self.port_base), app_id)

    def ask(self, method: str, room: str, path: str, **arguments: Any) -> Any:
        """Call a room; what is not 2xx ends the test."""
        url = f"http://{self.address(room)}{path}"
        headers = {"authorization": f"Bearer {self.token}"} if self.token else {}
        response = httpx.request(method, url, headers=headers, timeout=30, **arguments)
        if not response.is_success:
            raise ComposeTestError(f"{method} {path}: {response.status_code} {response.text}")
        return response.json() if response.content else None

    def tell(self) -> str:
        """Sign up, create tasks, and see them counted and recorded."""
        self.email, self.password = f"owner-{self.marker}@example.org", f"passphrase {self.marker} for the test"
        body = {"organisation": "Compose", "name": "Olga Owner", "email": self.email, "password": self.password}
        self.token = self.ask("POST", "users", "/v1/signup", json=body)["access_token"]
        self.create(3)
        asyncio.run(self.belongings().put())
        return self.check()

    def belongings(self) -> Belongings:
        """What the owner keeps in the engines, by way of the adapters' published ports."""
        return Belongings(self.token, self.address)

    def create(self, number: int) -> None:
        for index in range(number):
            title = f"{self.marker} {len(self.tasks)} {index}"
            self.tasks.append(self.ask("POST", "tasks", "/v1/tasks", json={"title": title})["id"])

    def check(self) -> str:
        """Log in anew, and find every task, its count and its audit record."""
        self.token = ""
        credentials = {"email": self.email, "password": self.password}
        self.token = until("login", lambda: self.ask("POST", "users", "/v1/login", json=credentials))["access_token"]
        for task in self.tasks:
            self.ask("GET", "tasks", f"/v1/tasks/{task}")

        def counted() -> bool:
            summary = self.ask("GET", "analytics", "/v1/analytics/summary")
            count = summary["topics"]["task.created"]
            if count > len(self.tasks):
                raise ComposeTestError(f"analytics counts {count} tasks of {len(self.tasks)}")
            return bool(count == len(self.tasks))

        def recorded() -> bool:
            records = self.ask("GET", "audit", "/v1/audit?limit=200")["records"]
            text = str([record for record in records if record["kind"] == "event"])
            return all(task in text for task in self.tasks)

        def kept() -> bool:
            return asyncio.run(self.belongings().found()) == ALL

        until("what was put into the engines", kept)
        until("the count in analytics", counted)
        until("the audit records", recorded)
        return (
            f"{len(self.tasks)} tasks of {self.email} are there, counted once each by analytics, and in the audit; "
            f"{', '.join(ALL)} have what they were given."
        )

    def go_on(self) -> str:
        """One task more, with all its effects."""
        self.create(1)
        return self.check()


def until(what: str, attempt: Callable[[], Any]) -> Any:
    """What an attempt finds; again while it finds nothing or is refused."""
    end = time.monotonic() + PATIENCE
    trouble = "nothing was found"
    while time.monotonic() < end:
        try:
            if found := attempt():
                return found
        except (ComposeTestError, IsaError, httpx.HTTPError) as error:
            trouble = str(error)
        time.sleep(0.3)
    raise ComposeTestError(f"{what} did not come within {PATIENCE:.0f} s: {trouble}")
