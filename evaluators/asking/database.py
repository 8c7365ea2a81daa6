"""An SQLite file that many processes share, on any file system; no lock of another process stops the event loop."""

from __future__ import annotations

import asyncio
import random
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from evaluators.errors import RunError

T = TypeVar("T")

PATIENCE_S = 60.0
"""So long a lock of another process is waited for."""
_TOLD_AFTER_S = 5.0
_REMOTE = {
    *("nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "gpfs", "beegfs", "fhgfs", "ceph", "glusterfs", "afs"),
    *("panfs", "pvfs2", "orangefs", "ocfs2", "gfs2", "wekafs"),
}
"""File systems of several hosts, which share no memory, so that write-ahead logging breaks (sqlite.org/wal.html)."""


def file_system(path: Path) -> str:
    """The type of the file system that a path is on; "" where the kernel does not tell."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    best, kind, place = -1, "", path.resolve()
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        point = re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), left.split()[4])
        if len(point) >= best and place.is_relative_to(point):
            best, kind = len(point), right.split()[0]
    return kind


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another process holds a lock, so that the same will work later."""
    return (getattr(error, "sqlite_errorcode", 0) & 0xFF) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


class Database:
    """The file, open. Of one event loop, or of none."""

    def __init__(self, path: Path, schema: str, version: int) -> None:
        """Raises RunError where the file is no cache of ours or cannot be written."""
        self.path = path
        self.note: str | None = None
        """What a user should know of how it is open."""
        self.say: Callable[[str], None] = lambda text: None
        self._turn = asyncio.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            kind = file_system(path.parent)
            if path.is_file() and path.stat().st_size and not path.open("rb").read(16).startswith(b"SQLite format 3"):
                raise RunError(f"--cache {path}: file is not a database; mend it or name another file")
        except OSError as error:
            raise RunError(f"--cache {path}: {error.strerror or error}; name another file") from error
        remote = kind in _REMOTE or kind.startswith("fuse.")
        if remote:
            self._slow(f"on {kind}, which several hosts share")
        self._patiently(lambda: self._open(schema, version, wal=not remote))

    def _open(self, schema: str, version: int, *, wal: bool) -> None:
        self._connect()
        try:
            found = self._db.execute("PRAGMA user_version").fetchone()[0]
            if found not in (0, version):
                raise RunError(f"--cache {self.path}: written by another version of depthlab; name another file")
            if self._db.execute("PRAGMA page_count").fetchone()[0] == 0:
                self._db.execute("PRAGMA auto_vacuum=INCREMENTAL")
            if not (wal and self._writes_ahead()):
                self._write_through()
            tables = {row[0] for row in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if not found or not set(re.findall(r"CREATE TABLE IF NOT EXISTS (\w+)", schema)) <= tables:
                with transaction(self._db):
                    for statement in schema.split(";"):
                        self._db.execute(statement)
                    self._db.execute(f"PRAGMA user_version={version}")
        except BaseException:
            self._db.close()
            raise

    def _connect(self) -> None:
        # Autocommit: each statement is its own transaction unless one is begun.
        self._db = sqlite3.connect(self.path, timeout=0, isolation_level=None, check_same_thread=False)

    def _writes_ahead(self) -> bool:
        """Keep a write-ahead log, where that works: readers and a writer are then in nobody's way."""
        try:
            mode = self._db.execute("PRAGMA journal_mode=WAL").fetchone()[0]
            with transaction(self._db):  # maps the memory that processes share
                pass
        except sqlite3.OperationalError as error:
            if is_busy(error):
                raise
            mode = str(error)
        if mode == "wal":
            # Safe against a killed process; a power cut may cost the last replies but not the file.
            self._db.execute("PRAGMA synchronous=NORMAL")
            return True
        self._slow(f"without write-ahead logging ({mode})")
        self._db.close()
        self._connect()
        # The one way to leave the log that needs no shared memory.
        self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
        return False

    def _write_through(self) -> None:
        try:
            self._db.execute("PRAGMA journal_mode=DELETE")
        except sqlite3.OperationalError as error:
            if not is_busy(error):
                raise  # another process of this host has it open as it was, which works between the two
        self._db.execute("PRAGMA locking_mode=NORMAL")
        self._db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()  # lets go of the lock

    def _slow(self, why: str) -> None:
        self.note = f"cache       {self.path} is {why}: every write waits for the disk; --cache names another file"

    def _patiently(self, act: Callable[[], T], patience_s: float | None = None) -> T:
        """At once or, without an event loop that would stand still, after waiting."""
        wait = _Wait(self, PATIENCE_S if patience_s is None else patience_s)
        while True:
            try:
                return act()
            except sqlite3.Error as error:
                time.sleep(wait.after(error))

    def now(self, act: Callable[[sqlite3.Connection], T], patience_s: float | None = None) -> T:
        """In a transaction, from outside an event loop. Raises RunError as `do`."""
        return self._patiently(lambda: self._within(act), patience_s)

    async def do(self, act: Callable[[sqlite3.Connection], T]) -> T:
        """In a transaction, as soon as other processes let us.

        Raises:
            RunError: one of them does not for `PATIENCE_S`, or the disk or the file is no good.
        """
        return await self._do(lambda: self._within(act))

    async def look(self, act: Callable[[sqlite3.Connection], T]) -> T:
        """Without a transaction: a single statement that reads. Raises RunError as `do`."""
        return await self._do(lambda: act(self._db))

    async def _do(self, act: Callable[[], T]) -> T:
        wait: _Wait | None = None
        while True:
            try:
                if self.note is None:
                    return act()
                async with self._turn:
                    return await asyncio.to_thread(act)
            except sqlite3.Error as error:
                wait = wait or _Wait(self, PATIENCE_S)
                await asyncio.sleep(wait.after(error))

    def _within(self, act: Callable[[sqlite3.Connection], T]) -> T:
        with transaction(self._db):
            return act(self._db)

    def shrink(self) -> None:
        """Give the room of what was deleted back to the disk, in steps that let others in between."""
        if self._db.execute("PRAGMA auto_vacuum").fetchone()[0] == 2:
            while self._db.execute("PRAGMA freelist_count").fetchone()[0]:
                self._patiently(lambda: self._db.execute("PRAGMA incremental_vacuum(1000)").fetchall())
        else:
            self._patiently(lambda: self._db.execute("VACUUM"))

    def close(self) -> None:
        """Close the file."""
        self._db.close()


class _Wait:
    """For a lock to go away: how long until the next try."""

    def __init__(self, database: Database, patience_s: float) -> None:
        self._database = database
        self._began_s = time.monotonic()
        self._patience_s = patience_s
        self._told = False

    def after(self, error: sqlite3.Error) -> float:
        """Seconds. Raises RunError where waiting is of no use, or of no use any more."""
        path, waited_s = self._database.path, time.monotonic() - self._began_s
        if not is_busy(error):
            raise RunError(f"--cache {path}: {error}; mend it or name another file") from error
        if waited_s >= self._patience_s:
            raise RunError(
                f"--cache {path}: another process has locked it for {waited_s:.0f} s; end that one or name another file"
            ) from error
        if waited_s >= _TOLD_AFTER_S and not self._told:
            self._told = True
            self._database.say(f"waiting for another process that has locked --cache {path}")
        return random.uniform(0.002, min(0.25, 0.01 + waited_s / 4))


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All of it, or nothing."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
