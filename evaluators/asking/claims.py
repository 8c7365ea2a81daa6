"""Calls that are under way, claimed in the cache's file, so that several processes pay for each once.

A claim holds for `CLAIM_S` and is renewed by a timer while its call lasts. Those of a process that was killed end then,
or at once where we can see that it is dead: on the same boot of the same machine, among the same process numbers.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sqlite3
import time
from pathlib import Path

from evaluators.asking.database import Database
from evaluators.errors import RunError

CLAIM_S = 30.0
RENEWALS = 3
"""So often in `CLAIM_S`."""

SCHEMA = (
    "CREATE TABLE IF NOT EXISTS claims (key TEXT PRIMARY KEY, owner TEXT NOT NULL, until REAL NOT NULL) WITHOUT ROWID"
)


class Claims:
    """Those of one process, in an open file."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._owner = f"{_numbers()} {os.getpid()} {_started(os.getpid())} {secrets.token_hex(8)}"
        self._held: set[str] = set()
        self._timer: asyncio.Task[None] | None = None

    def take(self, db: sqlite3.Connection, key: str) -> bool:
        """Whether the call is ours to make now; within a transaction."""
        now = time.time()
        row = db.execute("SELECT owner, until FROM claims WHERE key = ?", (key,)).fetchone()
        if row is not None and row[0] != self._owner and now < row[1] and not _is_dead(row[0]):
            return False
        db.execute("INSERT OR REPLACE INTO claims VALUES (?, ?, ?)", (key, self._owner, now + CLAIM_S))
        return True

    def hold(self, key: str) -> None:
        """Renew the claim from now on, until it is dropped."""
        self._held.add(key)
        if self._timer is None or self._timer.done():
            self._timer = asyncio.create_task(self._renew())

    async def _renew(self) -> None:
        while self._held:
            await asyncio.sleep(CLAIM_S / RENEWALS)
            if self._held:
                try:
                    await self._database.do(self._renewed)
                except RunError:
                    continue  # the calls themselves will meet and tell the same

    def _renewed(self, db: sqlite3.Connection) -> None:
        db.execute("UPDATE claims SET until = ? WHERE owner = ?", (time.time() + CLAIM_S, self._owner))

    def drop(self, db: sqlite3.Connection, key: str) -> None:
        """Nobody needs to wait for the call any more; within a transaction."""
        self._held.discard(key)
        db.execute("DELETE FROM claims WHERE key = ? AND owner = ?", (key, self._owner))

    def drop_all(self) -> None:
        """Give up all our claims; where the file is locked, they end by themselves."""
        if self._timer is not None:
            self._timer.cancel()
        if self._held:
            self._held.clear()
            try:
                self._database.now(lambda db: db.execute("DELETE FROM claims WHERE owner = ?", (self._owner,)), 1.0)
            except RunError:
                return


def _numbers() -> str:
    """Which process numbers ours is one of: the machine's boot and its namespace; unknown ones are nobody else's."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"unknown/{secrets.token_hex(8)}"


def _started(process: int) -> str | None:
    """When a process began, in the kernel's ticks, since numbers are used again; None: there is none."""
    try:
        # The second field is the command in parentheses, which may hold anything.
        return (
            Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
        )
    except OSError:
        return None


def _is_dead(owner: str) -> bool:
    numbers, _, rest = owner.partition(" ")
    parts = rest.split(" ")
    return numbers == _numbers() and len(parts) == 3 and parts[0].isdecimal() and _started(int(parts[0])) != parts[1]
