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
from dataclasses import asdict
from pathlib import Path
from typing import Any

from evaluators.asking.claims import Claims, transaction
from evaluators.errors import RunError
from evaluators.messages import Call, Reply
from evaluators.values import Usage

VERSION = 1
POLL_S = 0.1

_SCHEMA = """
CREATE TABLE IF NOT EXISTS replies (
    key TEXT PRIMARY KEY, judge TEXT NOT NULL, created REAL NOT NULL, reply TEXT NOT NULL, cost TEXT
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS abilities (judge TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
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
        "sampling": asdict(call.sampling),
        "schema": call.schema,
        "index": call.place.index,
        "attempt": call.attempt,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class Cache:
    """The file, open."""

    def __init__(self, path: Path) -> None:
        """Raises RunError where the file is no cache of ours or cannot be written."""
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Autocommit: each statement is its own transaction unless one is begun.
            self._db = sqlite3.connect(path, timeout=30, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            # Safe against a killed process; a power cut may cost the last replies but not the file.
            self._db.execute("PRAGMA synchronous=NORMAL")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, VERSION):
                raise RunError(f"--cache {path}: written by another version of depthlab; name another file")
            self._db.executescript(_SCHEMA)
            self.claims = Claims(self._db)
            self._db.execute(f"PRAGMA user_version={VERSION}")
        except (OSError, sqlite3.Error) as error:
            raise RunError(f"--cache {path}: {getattr(error, 'strerror', None) or error}") from error

    def close(self) -> None:
        """Give up claims and close."""
        self.claims.release_all()
        self._db.close()

    def get(self, key: str) -> Reply | None:
        """The reply, if it is there."""
        row = self._db.execute("SELECT reply FROM replies WHERE key = ?", (key,)).fetchone()
        return None if row is None else _reply(json.loads(row[0]))

    def put(self, key: str, judge: str, reply: Reply, cost: str | None) -> None:
        """Keep a reply, and let go of its claim, in one transaction."""
        with transaction(self._db):
            self._db.execute(
                "INSERT OR REPLACE INTO replies VALUES (?, ?, ?, ?, ?)",
                (key, judge, time.time(), json.dumps(asdict(reply), ensure_ascii=False), cost),
            )
            self.claims.drop(key)

    async def claim(self, key: str) -> Reply | None:
        """Wait until the call is ours to make (None), or another process has its reply."""
        while True:
            if self.claims.take(key):
                # Between our look at the replies and the claim, another process may have finished.
                reply = self.get(key)
                if reply is not None:
                    self.claims.release(key)
                return reply
            await asyncio.sleep(POLL_S)
            if (reply := self.get(key)) is not None:
                return reply

    def abilities(self, judge: str) -> dict[str, Any] | None:
        """What a judge's server once said of itself."""
        row = self._db.execute("SELECT value FROM abilities WHERE judge = ?", (judge,)).fetchone()
        return None if row is None else json.loads(row[0])

    def put_abilities(self, judge: str, value: dict[str, Any]) -> None:
        """Keep what a server says of itself, so that a run from the cache asks nothing."""
        self._db.execute("INSERT OR REPLACE INTO abilities VALUES (?, ?)", (judge, json.dumps(value)))

    def summary(self) -> list[tuple[str, int, int, float, float]]:
        """By judge: (name, replies, bytes, first, last in seconds since 1970)."""
        return self._db.execute(
            "SELECT judge, COUNT(*), SUM(LENGTH(reply)), MIN(created), MAX(created) FROM replies GROUP BY judge"
        ).fetchall()

    def prune(self, *, before: float | None, judge: str | None) -> int:
        """Delete replies older than a time, of a judge, or both; returns how many, and shrinks the file."""
        deleted = self._db.execute(
            "DELETE FROM replies WHERE (? IS NULL OR created < ?) AND (? IS NULL OR judge = ?)",
            (before, before, judge, judge),
        ).rowcount
        self._db.execute("VACUUM")
        return deleted


def _reply(value: dict[str, Any]) -> Reply:
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
