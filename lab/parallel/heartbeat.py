"""Which rank keeps the others waiting: every rank posts where it stands, and a watcher ends a run that stands still."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import timedelta

import torch
from torch.distributed import TCPStore

from lab.errors import EXIT_ERROR, LostRankError
from lab.parallel.collectives import several

INTERVAL_S = 1.0
"""Between two posts of a rank."""
SILENT_AFTER_S = 4 * INTERVAL_S
"""Without a new post for so long, a process is gone, or stopped."""


@dataclass(frozen=True)
class Place:
    """Where a rank stands."""

    rank: int
    host: str
    moments: int = 0
    """Moments passed so far: the same number at the same place on every rank."""
    step: int = 0
    """Optimizer step under way, or the last one."""
    doing: str = "starting"
    beat: int = 0
    """Posts so far; they stop with the process."""

    def __str__(self) -> str:
        where = f"step {self.step}, {self.doing}" if self.step else self.doing
        return f"rank {self.rank} on {self.host} ({where})"


class Heartbeat:
    """Every rank makes one, and says with `at` what it begins. With a single process it does nothing.

    A thread of each rank posts its place to the TCP store through which the ranks found each other, over a connection
    of its own, so that it goes on while the main thread is held in a collective. If the main thread begins nothing new
    for `limit_s` seconds, the thread ends the process with exit code 1; the lowest rank that is not behind says at
    which step, and which ranks were missing. It ends this process only: each rank has a watcher, and the launcher of
    a machine ends the others there.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._limited = False
        self._since_s = time.monotonic()
        self._place = Place(rank=int(os.environ.get("RANK", "0")), host=socket.gethostname())
        self._beat = 0
        self._store: TCPStore | None = None
        self._end = threading.Event()

    def at(self, doing: str, *, step: int | None = None, limited: bool = True) -> None:
        """The main thread begins something.

        Args:
            doing: what, as a message can say it.
            step: optimizer step under way; as before if not given.
            limited: whether it must end within the limit; preparing data may take as long as it takes.
        """
        now = self._place
        self._place = replace(now, moments=now.moments + 1, step=now.step if step is None else step, doing=doing)
        self._limited, self._since_s = limited, time.monotonic()

    @contextmanager
    def watching(self) -> Iterator[Heartbeat]:
        """Post and watch in here; a collective that fails because ranks are gone is told as their names.

        Raises:
            LostRankError: instead of the collective's own error.
        """
        if not several():
            yield self
            return
        self._post()
        threading.Thread(target=self._watch, name="heartbeat", daemon=True).start()
        try:
            yield self
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # what gloo, NCCL and the store raise
            missing, reporter = self._missing()
            if not missing:
                raise
            raise LostRankError(f"{self._where()}: lost {missing}", reported_by=reporter) from error
        finally:
            self._end.set()

    def _watch(self) -> None:
        while not self._end.wait(INTERVAL_S):
            with suppress(RuntimeError):  # a store that does not answer is told when it matters
                self._post()
            if self._limited and time.monotonic() - self._since_s > self._limit_s:
                self._give_up()

    def _post(self) -> None:
        self._beat += 1
        post = json.dumps(asdict(replace(self._place, beat=self._beat)))
        self._connection().set(f"heartbeat/{self._place.rank}", post)

    def _give_up(self) -> None:
        missing, reporter = self._missing()
        if self._place.rank == reporter:
            waited = f"no progress for {self._limit_s:g} s (--train.hang-timeout)"
            told = f"missing: {missing}" if missing else "all ranks have come here, so the network between them stands"
            print(f"\nerror: {self._where()}: {waited}; {told}", file=sys.stderr, flush=True)
        os._exit(EXIT_ERROR)  # the main thread cannot be reached

    def _where(self) -> str:
        return f"step {self._place.step}, {self._place.doing}" if self._place.step else self._place.doing

    def _missing(self) -> tuple[str, int]:
        """The ranks that are silent or behind the others, for a message, and the lowest of the rest, who tells it."""
        try:
            earlier = self._read()
            for _ in range(round(SILENT_AFTER_S / INTERVAL_S)):
                time.sleep(INTERVAL_S)
                self._post()  # others may be asking the same
            places = self._read()
        except RuntimeError:
            return f"the machine of rank 0 (its store at {os.environ['MASTER_ADDR']} does not answer)", self._place.rank
        latest = max(place.moments for place in places)
        missing = [
            f"{place}{', which gives no sign of life' if silent else ''}"
            for before, place in zip(earlier, places, strict=True)
            if (silent := place.beat == before.beat) or place.moments < latest
        ]
        present = [
            place.rank
            for before, place in zip(earlier, places, strict=True)
            if place.beat != before.beat and place.moments == latest
        ]
        return "; ".join(missing), min(present, default=self._place.rank)

    def _connection(self) -> TCPStore:
        if self._store is None:
            timeout = timedelta(seconds=SILENT_AFTER_S)
            host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
            self._store = TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=timeout)
        return self._store

    def _read(self) -> list[Place]:
        store, places = self._connection(), []
        for rank in range(int(os.environ["WORLD_SIZE"])):
            key = f"heartbeat/{rank}"
            places.append(Place(**json.loads(store.get(key))) if store.check([key]) else Place(rank, "an unknown host"))
        return places
