"""How fast calls go out: so many at once, so many and so many tokens a minute, and none while a server rests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from evaluators.asking.breaker import Breaker
from evaluators.asking.rates import Rates
from evaluators.asking.window import LONGEST_REST_S, Window, rest


class Limits:
    """All limits of one server and account, whichever judges ask it."""

    def __init__(self, window: Window, rates: Rates, breaker: Breaker, stop: asyncio.Event) -> None:
        self.window = window
        self.breaker = breaker
        self._rates = rates
        self._stop = stop
        self._out = 0

    @asynccontextmanager
    async def slot(self, tokens: int) -> AsyncIterator[float]:
        """Around one attempt of a call that may need so many tokens; gives the time (monotonic) at which it leaves."""
        async with self.window.place(), self.breaker.passage():
            await rest(await self._rates.take(tokens), self._stop)
            self._out += 1
            try:
                yield time.monotonic()
            finally:
                self._out -= 1

    async def used(self, taken: int, used: int) -> None:
        """A call took so many tokens of its minute's share, and used so many."""
        await self._rates.correct(used - taken)

    async def give_back(self, taken: int) -> None:
        """The call was not made."""
        await self._rates.correct(-taken, requests=-1)

    def worked(self, began_s: float) -> None:
        """There is a reply to the call that left at a time."""
        self.window.worked(began_s)
        self.breaker.worked()

    def refused(self, began_s: float, asked_s: float | None, reason: str) -> None:
        """The server wants fewer calls. Raises OutageError where it wants none for too long."""
        self.breaker.refused(reason, asked_s or 0.0, alone=self._out <= 1)
        if asked_s is not None and asked_s > self.breaker.give_up_s:
            asked_s = min(self.breaker.give_up_s, LONGEST_REST_S)  # others still work, and are not held up so long
        self.window.refused(began_s, asked_s)
