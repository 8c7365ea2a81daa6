"""Every reply that was paid for, in one SQLite file that several runs and processes share.

A reply is committed as soon as it is there, so a process that is killed loses none. A call that is under way is claimed
in the file (claims.py): another process waits for its reply in place of paying for it again.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sqlite3
import time
from pathlib import Path
from typing import Any

from evaluators.asking import claims, rates
from evaluators.asking.claims import Claims
from evaluators.asking.database import Database
from evaluators.messages import Call, Reply
from evaluators.values import Usage

VERSION = 1
POLL_S = 0.1
_BATCH = 500
"""Replies that are deleted in one transaction, so that runs beside it wait for no longer."""

_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS replies (
    key TEXT PRIMARY KEY, judge TEXT NOT NULL, created REAL NOT NULL, reply TEXT NOT NULL, cost TEXT
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS abilities (judge TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
{claims.SCHEMA};
{rates.SCHEMA}
"""


def default_path() -> Path:
    """`~/.cache/depthlab/judge.sqlite`, or below XDG_CACHE_HOME."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "depthlab" / "judge.sqlite"


def key_of(identity: str, coordinates: tuple[object, ...], call: Call) -> str:
    """What a reply depends on: judge, messages, sampling, schema, and which of several samples and attempts it is."""
    content = {
        "judge": identity,
        "coordinates": [str(value) for value in coordinates],
        "messages": [[message.role, message.content] for message in call.messages],
        "sampling": vars(call.sampling),
        "schema": call.schema,
        "index": call.place.index,
        "attempt": call.attempt,
    }
    if call.draw:  # left out where it is 0, so that replies from before there were draws are found
        content["draw"] = call.draw
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class Cache:
    """The file, open."""

    def __init__(self, path: Path) -> None:
        """Raises RunError where the file is no cache of ours or cannot be written."""
        self.database = Database(path, _SCHEMA, VERSION)
        self.claims = Claims(self.database)
        self.flying: dict[str, asyncio.Future[Any]] = {}
        """Calls that this process is making: equal ones wait for them."""

    def close(self) -> None:
        """Give up claims and close."""
        self.claims.drop_all()
        self.database.close()

    async def get(self, key: str) -> Reply | None:
        """The reply, if it is there."""
        return _reply(await self.database.look(lambda db: _row(db, key)))

    async def put(self, key: str, judge: str, reply: Reply, cost: str | None, *, replace: bool = False) -> Reply:
        """Keep a reply, and let go of its claim, in one transaction.

        Returns:
            The reply that stands: where our claim had lapsed, another process may have put its own, which others have
            read by now and which is replaced only if asked for.
        """
        text = json.dumps({**vars(reply), "usage": vars(reply.usage)}, ensure_ascii=False)
        values = (key, judge, time.time(), text, cost)

        def write(db: sqlite3.Connection) -> str | None:
            self.claims.drop(db, key)
            how = "REPLACE" if replace else "IGNORE"
            if db.execute(f"INSERT OR {how} INTO replies VALUES (?, ?, ?, ?, ?)", values).rowcount:
                return None
            return _row(db, key)

        return _reply(await self.database.do(write)) or reply

    async def claim(self, key: str, *, refresh: bool = False) -> Reply | None:
        """Wait until the call is ours to make (None), or another process has its reply.

        Args:
            refresh: only replies that come while we wait count.
        """
        began_s, poll_s = time.time(), POLL_S

        def take(db: sqlite3.Connection) -> tuple[str | None, bool]:
            row = _row(db, key, began_s if refresh else None)
            return row, row is None and self.claims.take(db, key)

        while True:
            row, ours = await self.database.do(take)
            if row is not None:
                return _reply(row)
            if ours:
                self.claims.hold(key)
                return None
            await asyncio.sleep(poll_s)
            poll_s = min(2 * poll_s, 1.0)

    async def release(self, key: str) -> None:
        """Give up a claim: the call failed."""
        await self.database.do(lambda db: self.claims.drop(db, key))

    async def abilities(self, judge: str) -> dict[str, Any] | None:
        """What a judge's server once said of itself."""
        query = "SELECT value FROM abilities WHERE judge = ?"
        row = await self.database.look(lambda db: db.execute(query, (judge,)).fetchone())
        return None if row is None else json.loads(row[0])

    async def put_abilities(self, judge: str, value: dict[str, Any]) -> None:
        """Keep what a server says of itself, so that a run from the cache asks nothing."""
        row = (judge, json.dumps(value))
        await self.database.do(lambda db: db.execute("INSERT OR REPLACE INTO abilities VALUES (?, ?)", row))

    def summary(self) -> list[tuple[str, int, int, float, float]]:
        """By judge: (name, replies, bytes, first, last in seconds since 1970)."""
        query = "SELECT judge, COUNT(*), SUM(LENGTH(reply)), MIN(created), MAX(created) FROM replies GROUP BY judge"
        return self.database.now(lambda db: db.execute(query).fetchall())

    def prune(self, *, before: float | None, judge: str | None) -> int:
        """Delete replies older than a time, of a judge, or both, and what servers said of themselves.

        Runs may go on beside it. Returns how many replies were deleted, and shrinks the file.
        """
        which = "(? IS NULL OR created < ?) AND (? IS NULL OR judge = ?)"
        values = (before, before, judge, judge)
        batch = f"DELETE FROM replies WHERE key IN (SELECT key FROM replies WHERE {which} LIMIT {_BATCH})"
        deleted = 0
        while found := self.database.now(lambda db: db.execute(batch, values).rowcount):
            deleted += found
        self.database.now(lambda db: db.execute("DELETE FROM abilities"))
        self.database.shrink()
        return deleted


def _row(db: sqlite3.Connection, key: str, since_s: float | None = None) -> str | None:
    row = db.execute("SELECT reply FROM replies WHERE key = ? AND created >= ?", (key, since_s or 0.0)).fetchone()
    return None if row is None else row[0]


def _reply(text: str | None) -> Reply | None:
    if text is None:
        return None
    value = json.loads(text)
    expected = value["expected"]
    return Reply(
        value["text"],
        Usage(**value["usage"]),
        value["finish"],
        None if expected is None else tuple(expected),
        value.get("thoughts", ""),
        value.get("unclosed", False),
        tuple(value.get("adapted", ())),
    )
