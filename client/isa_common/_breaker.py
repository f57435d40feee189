"""A circuit breaker that counts only what says that the other side is not there."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from datetime import timedelta

from isa_common.errors import Code, Unavailable

_COUNTED = frozenset({Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED})


class Breaker:
    """Refuses calls at once after many failures in a row, and lets one through from time to time to see."""

    def __init__(
        self,
        *,
        threshold: int = 10,
        pause: timedelta = timedelta(milliseconds=500),
        longest_pause: timedelta = timedelta(seconds=1),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._threshold = threshold
        self._pause = pause.total_seconds()
        self._longest_pause = longest_pause.total_seconds()
        self._clock = clock
        self._failures = 0
        self._opened = 0
        self._opens_at = 0.0

    @property
    def failures(self) -> int:
        """How many failures in a row were counted."""
        return self._failures

    @property
    def is_open(self) -> bool:
        """Whether the next call would be refused."""
        return self._failures >= self._threshold and self._clock() < self._opens_at

    def check(self) -> None:
        """Raise Unavailable while open; the first call after the pause goes through, alone."""
        if self._failures < self._threshold:
            return
        now = self._clock()
        if now < self._opens_at:
            wait = timedelta(seconds=self._opens_at - now)
            raise Unavailable("The service did not answer the last calls; waiting before the next.", retry_after=wait)
        self._hold(now)

    def record(self, code: Code, *, seen: int | None = None) -> None:
        """Learn how a call ended, and how many failures were counted when it began.

        Calls that fail together, such as all that were in flight when a connection broke, are one failure.
        """
        if code not in _COUNTED:
            self._failures = self._opened = 0
            return
        if seen is not None and seen < self._failures:
            return
        self._failures += 1
        now = self._clock()
        if (
            self._failures >= self._threshold and now >= self._opens_at
        ):  # what was in flight does not lengthen the pause
            self._opened += 1
            self._hold(now)

    def _hold(self, now: float) -> None:
        pause = min(self._pause * 2 ** min(self._opened, 10), self._longest_pause)
        self._opens_at = now + pause * random.uniform(0.5, 1.0)
