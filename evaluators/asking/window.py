"""How many calls a server takes at once, found out by its refusals, and how far apart they leave.

Additive increase, multiplicative decrease (Chiu and Jain 1989), with pacing: the first refusal of a round halves the
window w, every reply widens it by 1 / w (by 2 % where that is less). Once a server has refused, calls leave at
intervals of latency / w, so that those who waited for a rest to end do not all leave at its end; with w < 1 that is
less than one call at a time.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

SMALLEST = 0.01
_GROWTH = 0.02
_FIRST_LATENCY_S = 0.5
LONGEST_REST_S = 60.0


async def rest(seconds: float, stop: asyncio.Event) -> None:
    """Wait, but no longer than until someone asks to stop."""
    if seconds > 0:
        try:
            await asyncio.wait_for(stop.wait(), seconds)
        except TimeoutError:
            return


class Window:
    """Of one server and account."""

    def __init__(self, most: int, stop: asyncio.Event, rest_s: float = 1.0) -> None:
        self.most = most
        self.size = float(most)
        self._stop = stop
        self._first_rest_s = rest_s
        self._in_flight = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._latency_s: float | None = None
        self._paced = False
        self._narrowed_s = 0.0
        self._refusals = 0
        """Rounds that were refused since a call last worked."""
        self._next_s = 0.0
        self._resume_s = 0.0

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Around a call: first come, first served."""
        await self._enter()
        try:
            await self._departure()
            yield
        finally:
            self._leave()

    async def _enter(self) -> None:
        if not self._waiting and self._in_flight < self._room:
            self._in_flight += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # the place was ours already
                self._leave()
            elif turn in self._waiting:
                self._waiting.remove(turn)
            raise

    def _leave(self) -> None:
        self._in_flight -= 1
        self._wake()

    @property
    def _room(self) -> int:
        return max(1, int(self.size))

    def _wake(self) -> None:
        while self._waiting and self._in_flight < self._room:
            turn = self._waiting.popleft()
            if not turn.done():
                self._in_flight += 1
                turn.set_result(None)

    async def _departure(self) -> None:
        while not self._stop.is_set():
            now_s = time.monotonic()
            start_s = max(now_s, self._resume_s, self._next_s)
            if self._paced:
                self._next_s = start_s + (self._latency_s or _FIRST_LATENCY_S) / self.size
            await rest(start_s - now_s, self._stop)
            if self._resume_s <= time.monotonic():
                return

    def pause(self, seconds: float) -> None:
        """No call leaves before so many seconds are over."""
        self._resume_s = max(self._resume_s, time.monotonic() + seconds)

    def worked(self, began_s: float) -> None:
        """A call that left at a time (monotonic) has its reply."""
        took_s = time.monotonic() - began_s
        self._latency_s = took_s if self._latency_s is None else 0.9 * self._latency_s + 0.1 * took_s
        self._refusals = 0
        if self.size < self.most:
            self.size = min(self.most, self.size + min(1 / self.size, _GROWTH * self.size))
            self._wake()

    def refused(self, began_s: float, asked_s: float | None) -> float:
        """The server wants fewer calls, and asks for a rest of so long or does not say.

        Returns:
            Seconds of rest.
        """
        rest_s = asked_s or 0.0
        if began_s >= self._narrowed_s:  # calls that left before the last cut tell nothing of the window after it
            self.size, self._narrowed_s, self._paced = max(SMALLEST, self.size / 2), time.monotonic(), True
            if self._refusals and asked_s is None:
                longest_s = min(LONGEST_REST_S, self._first_rest_s * 2 ** min(self._refusals - 1, 10))
                rest_s = random.uniform(longest_s / 2, longest_s)
            self._refusals += 1
        self.pause(rest_s)
        return rest_s
