"""How fast calls go out: so many at once, so many and so many tokens a minute, and none while a server rests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from evaluators.errors import RunError


class Rate:
    """At most so many units a minute, evenly: the generic cell rate algorithm, with one second's worth of burst."""

    def __init__(self, per_minute: float | None) -> None:
        self._interval_s = 60 / per_minute if per_minute else 0.0
        self._next_s = 0.0

    async def take(self, units: float = 1) -> None:
        """Wait for the units' turn."""
        if self._interval_s:
            now = time.monotonic()
            start = max(self._next_s, now - 1.0)
            self._next_s = start + units * self._interval_s
            await asyncio.sleep(max(0.0, start - now))

    def correct(self, units: float) -> None:
        """So many more (or, negative, fewer) units were used than were taken."""
        self._next_s += units * self._interval_s


class OutageError(RunError):
    """The server has been down for too long."""


class Breaker:
    """Stops calls to a server that fails: after `threshold` failures in a row one call probes it, ever more seldom."""

    def __init__(self, threshold: int, give_up_s: float, rest_s: float = 1.0, longest_s: float = 30.0) -> None:
        self._threshold = threshold
        self._give_up_s = give_up_s
        self._first_rest_s = rest_s
        self._longest_s = longest_s
        self._failures = 0
        self._down_since_s: float | None = None
        self._rest_s = rest_s
        self._probe = asyncio.Lock()
        self._closed = asyncio.Event()
        self._closed.set()

    @asynccontextmanager
    async def passage(self) -> AsyncIterator[None]:
        """Around a call: at once while the server is well, one at a time while it is being probed."""
        if self._closed.is_set():
            yield
            return
        async with self._probe:
            if not self._closed.is_set():
                await self._rest()
                yield
                return
        yield

    async def _rest(self) -> None:
        try:
            # A call in flight may come back well and end the rest.
            await asyncio.wait_for(self._closed.wait(), self._rest_s)
        except TimeoutError:
            self._rest_s = min(2 * self._rest_s, self._longest_s)

    def worked(self) -> None:
        """A reply came, be it a refusal: the server is there."""
        self._failures = 0
        self._down_since_s = None
        self._rest_s = self._first_rest_s
        self._closed.set()

    def failed(self, reason: str) -> None:
        """No reply came.

        Raises:
            OutageError: nothing has worked for `give_up_s` seconds and `threshold` calls.
        """
        now = time.monotonic()
        self._failures += 1
        self._down_since_s = self._down_since_s or now
        if self._failures >= self._threshold:
            self._closed.clear()
            if now - self._down_since_s >= self._give_up_s:
                raise OutageError(
                    f"the server does not answer: {self._failures} calls in a row failed, the last with: {reason}"
                )


class Limits:
    """All limits of one server."""

    def __init__(self, concurrency: int, requests: float | None, tokens: float | None, breaker: Breaker) -> None:
        self._slots = asyncio.Semaphore(concurrency)
        self._requests = Rate(requests)
        self._tokens = Rate(tokens)
        self._resume_s = 0.0
        self.breaker = breaker

    @asynccontextmanager
    async def slot(self, tokens: int) -> AsyncIterator[None]:
        """Around one attempt of a call that may need so many tokens."""
        async with self._slots, self.breaker.passage():
            await self._requests.take()
            await self._tokens.take(tokens)
            while (wait_s := self._resume_s - time.monotonic()) > 0:
                await asyncio.sleep(wait_s)
            yield

    def used(self, taken: int, used: int) -> None:
        """A call took so many tokens of its minute's share, and used so many."""
        self._tokens.correct(used - taken)

    def pause(self, seconds: float) -> None:
        """The server asked for a rest: no call goes out before it is over."""
        self._resume_s = max(self._resume_s, time.monotonic() + seconds)
