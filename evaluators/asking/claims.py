"""Calls that are under way, claimed in the cache's file, so that several processes pay for each once.

Claims of dead processes do not hold.
"""

from __future__ import annotations

import os
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager

CLAIM_S = 30.0
"""A claim holds so long without a sign of life of its process; signs are given three times as often."""


class Claims:
    """Those of one process, in an open file."""

    def __init__(self, db: sqlite3.Connection) -> None:
        """Makes the table if it is not there."""
        self._db = db
        self._owner = f"{socket.gethostname()}:{os.getpid()}:{time.time_ns()}"
        self._alive_s = 0.0
        db.execute(
            "CREATE TABLE IF NOT EXISTS claims (key TEXT PRIMARY KEY, owner TEXT NOT NULL, until REAL NOT NULL) "
            "WITHOUT ROWID"
        )

    def take(self, key: str) -> bool:
        """Whether the call is ours to make now."""
        now = time.time()
        with transaction(self._db):
            row = self._db.execute("SELECT owner, until FROM claims WHERE key = ?", (key,)).fetchone()
            if row is not None and row[1] > now and row[0] != self._owner and not _is_dead(row[0]):
                return False
            self._db.execute("INSERT OR REPLACE INTO claims VALUES (?, ?, ?)", (key, self._owner, now + CLAIM_S))
        return True

    def stay_alive(self) -> None:
        """Renew our claims, if it is time."""
        now = time.time()
        if now - self._alive_s > CLAIM_S / 3:
            self._alive_s = now
            self._db.execute("UPDATE claims SET until = ? WHERE owner = ?", (now + CLAIM_S, self._owner))

    def release(self, key: str) -> None:
        """Give up a claim: the call failed."""
        self._db.execute("DELETE FROM claims WHERE key = ? AND owner = ?", (key, self._owner))

    def drop(self, key: str) -> None:
        """The call has its reply: nobody needs to wait any more."""
        self._db.execute("DELETE FROM claims WHERE key = ?", (key,))

    def release_all(self) -> None:
        """Give up all our claims."""
        self._db.execute("DELETE FROM claims WHERE owner = ?", (self._owner,))


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All of it, or nothing."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def _is_dead(owner: str) -> bool:
    host, pid, _ = owner.rsplit(":", 2)
    if host != socket.gethostname():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
