"""So many requests and tokens a minute for an account, in one process or, through the cache's file, in all of them."""

from __future__ import annotations

import sqlite3
import time

from evaluators.asking.database import Database

BURST_S = 1.0
"""So much of a quiet time may be made up for at once."""

SCHEMA = "CREATE TABLE IF NOT EXISTS rates (account TEXT PRIMARY KEY, request REAL NOT NULL, token REAL NOT NULL)"


def turn(free_s: float, now_s: float, units: float, interval_s: float) -> tuple[float, float]:
    """The generic cell rate algorithm: evenly, with a second's worth of burst.

    Args:
        free_s: when the units taken before are used up.
        interval_s: seconds for a unit.

    Returns:
        When these units may start, and when they are used up in their turn.
    """
    start_s = max(free_s, now_s - BURST_S)
    return start_s, start_s + units * interval_s


class Rates:
    """Those of one account."""

    def __init__(
        self, requests: float | None, tokens: float | None, *, account: str = "", database: Database | None = None
    ) -> None:
        self._interval_s = (60 / requests if requests else 0.0, 60 / tokens if tokens else 0.0)
        self._account = account
        self._database = database
        self._free_s = (0.0, 0.0)

    @property
    def limited(self) -> bool:
        """Whether there is a limit at all."""
        return any(self._interval_s)

    async def take(self, tokens: float) -> float:
        """Seconds to wait before a request that may need so many tokens."""
        if not self.limited:
            return 0.0
        if self._database is not None:
            return await self._database.do(lambda db: self._shared(db, 1, tokens))
        wait_s, self._free_s = self._turns(self._free_s, 1, tokens)
        return wait_s

    async def correct(self, tokens: float, *, requests: int = 0) -> None:
        """So many more (or, negative, fewer) were used than were taken."""
        if not self.limited or not (tokens or requests):
            return
        added = (requests * self._interval_s[0], tokens * self._interval_s[1])
        if self._database is not None:
            change = "UPDATE rates SET request = request + ?, token = token + ? WHERE account = ?"
            await self._database.do(lambda db: db.execute(change, (*added, self._account)))
        else:
            self._free_s = (self._free_s[0] + added[0], self._free_s[1] + added[1])

    def _turns(self, free_s: tuple[float, float], requests: float, tokens: float) -> tuple[float, tuple[float, float]]:
        now_s = time.time()
        turns = [
            turn(free, now_s, units, interval_s)
            for free, units, interval_s in zip(free_s, (requests, tokens), self._interval_s, strict=True)
        ]
        return max(0.0, *(start_s - now_s for start_s, _ in turns)), (turns[0][1], turns[1][1])

    def _shared(self, db: sqlite3.Connection, requests: float, tokens: float) -> float:
        row = db.execute("SELECT request, token FROM rates WHERE account = ?", (self._account,)).fetchone()
        wait_s, free_s = self._turns(row or (0.0, 0.0), requests, tokens)
        db.execute("INSERT OR REPLACE INTO rates VALUES (?, ?, ?)", (self._account, *free_s))
        return wait_s
