"""Requests at a steady pace, and what became of each: run by `story.inside`, where the cluster's names resolve.

`python -m tests.deploy.cluster.load SECONDS` signs an organisation up, creates tasks, reads its own, and prints JSON.
"""

from __future__ import annotations

import json
import secrets
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from tests.deploy.cluster.story import urls

WORKERS, PAUSE = 4, 0.05
PATIENCE = 400


def main(seconds: float) -> None:
    at = urls()
    email = f"load.{secrets.token_hex(4)}@example.org"
    body = {"organisation": "Load", "name": "Lo Ad", "email": email, "password": secrets.token_urlsafe(18)}
    answer = httpx.post(at["users"] + "/v1/signup", json=body, timeout=60)
    answer.raise_for_status()
    headers = {"authorization": f"Bearer {answer.json()['access_token']}"}
    end = time.monotonic() + seconds
    with ThreadPoolExecutor(WORKERS) as pool:
        found = list(pool.map(lambda number: work(number, at["tasks"], headers, end), range(WORKERS)))
    counted = when_back(lambda: count(httpx.Client(headers=headers, timeout=60), at["tasks"]))
    accepted = sum(each["accepted"] for each in found)
    failures = [failure for each in found for failure in each["failures"]]
    taken = sorted(moment for each in found for moment in each["milliseconds"])
    json.dump(
        {
            "requests": len(taken), "accepted": accepted, "there": counted, "failed": len(failures),
            "failures": failures[:5], "p99": taken[int(len(taken) * 0.99)] if taken else 0,
        },
        sys.stdout,
    )  # fmt: skip


def when_back(question: Callable[[], int]) -> int:
    """Ask again while nobody is there to answer: on one node a drain takes everything away."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return question()
        except httpx.HTTPError:
            if time.monotonic() > end:
                raise
            time.sleep(1)


def work(number: int, url: str, headers: dict[str, str], end: float) -> dict[str, Any]:
    """One caller: a new connection now and then, as clients behind a gateway have."""
    accepted, failures, milliseconds = 0, [], []
    while time.monotonic() < end:
        with httpx.Client(headers=headers, timeout=30) as client:
            for _ in range(20):
                if time.monotonic() > end:
                    break
                began = time.monotonic()
                try:
                    answer = client.post(
                        url + "/v1/tasks", json={"title": f"Task {secrets.token_hex(4)}"},
                        headers={"idempotency-key": secrets.token_hex(8)},
                    )  # fmt: skip
                    if answer.is_success:
                        accepted += 1
                    else:
                        failures.append(f"{answer.status_code} {answer.text[:200]}")
                except httpx.HTTPError as error:
                    failures.append(f"{type(error).__name__}: {error}")
                milliseconds.append(round((time.monotonic() - began) * 1000))
                time.sleep(PAUSE)
    return {"accepted": accepted, "failures": failures, "milliseconds": milliseconds}


def count(client: httpx.Client, url: str) -> int:
    """How many tasks the organisation has, page by page."""
    number, after = 0, ""
    while True:
        page = client.get(url + "/v1/tasks", params={"limit": 200, **({"cursor": after} if after else {})})
        page.raise_for_status()
        document = page.json()
        number += len(document["tasks"])
        after = document.get("next_cursor") or document.get("cursor") or ""
        if not after:
            return number


if __name__ == "__main__":
    main(float(sys.argv[1]))
