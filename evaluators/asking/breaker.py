"""What is done while a server does not answer, or refuses every call: it is probed, and in the end given up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from evaluators.asking.window import rest
from evaluators.errors import RunError

_QUIET_S = 5.0
"""So long a server may refuse every call before that is worth a word."""


class OutageError(RunError):
    """Nothing has worked for too long."""


class Breaker:
    """After `threshold` failures in a row one call probes the server, ever more seldom."""

    def __init__(
        self,
        threshold: int,
        give_up_s: float,
        stop: asyncio.Event,
        *,
        rest_s: float = 1.0,
        longest_s: float = 30.0,
        name: str = "the server",
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.give_up_s = give_up_s
        self._threshold = threshold
        self._stop = stop
        self._first_rest_s = rest_s
        self._longest_s = longest_s
        self._name = name
        self._say = say
        self._rest_s = rest_s
        self._failures = 0
        self._refusals = 0
        self._down_since_s: float | None = None
        self._told = False
        self._probe = asyncio.Lock()
        self._closed = asyncio.Event()
        self._closed.set()

    @property
    def left_s(self) -> float:
        """Seconds until the server is given up, if nothing works until then."""
        if self._down_since_s is None:
            return self.give_up_s
        return max(0.0, self._down_since_s + self.give_up_s - time.monotonic())

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
        """As long as the server has been found down, but a call in flight may come back well and end it."""
        waits = [asyncio.ensure_future(event.wait()) for event in (self._closed, self._stop)]
        await asyncio.wait(waits, timeout=min(self._rest_s, self.left_s), return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        self._rest_s = min(2 * self._rest_s, self._longest_s)

    async def wait(self, seconds: float) -> None:
        """Before a call is tried again: no longer than until the server is given up."""
        await rest(min(seconds, self.left_s), self._stop)

    def worked(self) -> None:
        """The server has answered."""
        if self._told:
            self._say(f"{self._name} answers again")
        self._failures, self._refusals, self._down_since_s, self._told = 0, 0, None, False
        self._rest_s = self._first_rest_s
        self._closed.set()

    def failed(self, reason: str) -> None:
        """No answer came.

        Raises:
            OutageError: nothing has worked for `give_up_s` seconds and two calls.
        """
        self._failures += 1
        if self._failures >= self._threshold:
            self._closed.clear()
        number = self._failures
        self._count(f"{self._name} does not answer", f"{number} calls in a row failed, the last with", reason, 0.0)

    def refused(self, reason: str, asked_s: float, *, alone: bool) -> None:
        """The server wants fewer calls, and none before a time that it asks for.

        Args:
            alone: no other call is in flight.

        Raises:
            OutageError: it has refused everything for `give_up_s` seconds, or asks for more than that.
        """
        self._failures = 0  # it is there
        self._closed.set()
        self._refusals += 1
        if alone and asked_s > self.give_up_s:
            raise OutageError(
                f"{self._name} asks to wait {asked_s:,.0f} s, longer than --give-up {self.give_up_s:g} ({reason}); "
                "the same command goes on"
            )
        quiet_s = 0.0 if asked_s >= _QUIET_S else _QUIET_S
        self._count(f"{self._name} refuses every call", "the last with", reason, quiet_s)

    def _count(self, what: str, how: str, reason: str, quiet_s: float) -> None:
        now_s = time.monotonic()
        self._down_since_s = now_s if self._down_since_s is None else self._down_since_s
        down_s = now_s - self._down_since_s
        if self._failures + self._refusals >= 2 and down_s >= self.give_up_s:
            raise OutageError(
                f"{what}: for {down_s:.0f} s (--give-up {self.give_up_s:g}) {how}: {reason}; the same command goes on"
            )
        if not self._told and self._failures + self._refusals >= 2 and down_s >= quiet_s:
            self._told = True
            self._say(f"{what} ({reason}): it is tried again for up to {self.give_up_s:g} s (--give-up)")
