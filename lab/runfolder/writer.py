"""One writer at a time for a run's folder: a file in it says who, on file systems with locks and without."""

from __future__ import annotations

import json
import os
import platform
import sys
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import psutil

from lab.errors import EXIT_ERROR, RunError

NAME = ".writer"
BEAT_S = 5.0
"""Between two signs of life of a writer: it touches its file."""
SILENT_S = 60.0
"""A writer on another machine that has given none for so long is gone."""


@dataclass(frozen=True)
class Holder:
    """The process that writes."""

    host: str
    machine: str
    """Tells machines, their boots and their containers apart: a process number means something within one alone."""
    process: int
    begun: float
    """When the process began, since numbers are used again: see `_begun`."""
    token: str
    since: str

    @classmethod
    def here(cls) -> Holder:
        """This process."""
        now = datetime.now().isoformat(sep=" ", timespec="seconds")
        return cls(platform.node(), _machine(), os.getpid(), _begun(os.getpid()), uuid.uuid4().hex, now)

    def is_gone(self) -> bool:
        """Whether it has ended, where this process can know."""
        if self.machine != _machine():
            return False
        try:
            process = psutil.Process(self.process)
            return process.status() == psutil.STATUS_ZOMBIE or _begun(self.process) != self.begun
        except (psutil.NoSuchProcess, FileNotFoundError):
            return True
        except psutil.AccessDenied:
            return False


class Writer:
    """While it is entered, this process alone writes in a run's folder; the ranks of one launch are one writer.

    Args:
        run_dir: the folder; it is made.
        say: is told why this may take a minute.

    Raises:
        RunError: another process does, and lives; or the folder cannot be written.
    """

    def __init__(self, run_dir: Path, say: Callable[[str], None] = lambda text: None) -> None:
        self._say = say
        self._run_dir, self._path = run_dir, run_dir / NAME
        self._me = Holder.here()
        self._made_folder = False
        self._end = threading.Event()
        self._beating = threading.Thread(target=self._beat, name="writer", daemon=True)

    def __enter__(self) -> Writer:
        try:
            self._made_folder = not self._run_dir.exists()
            self._run_dir.mkdir(parents=True, exist_ok=True)
            while not self._take():
                self._wait_or_refuse()
        except OSError as error:
            raise RunError(f"--run-dir {self._run_dir}: cannot be written: {error.strerror or error}") from error
        self._beating.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._end.set()
        self._beating.join()
        with suppress(OSError):
            if (held := _read(self._path)) and held[0] == self._me:
                self._path.unlink()
            if self._made_folder:
                self._run_dir.rmdir()  # of a run that never began; with anything in it, it stays

    def _take(self) -> bool:
        # Exclusive creation is atomic on network file systems too, where locks may not reach other machines.
        try:
            descriptor = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(json.dumps(asdict(self._me)))
        return True

    def _wait_or_refuse(self) -> None:
        """Returns when the holder is gone, and its file with it."""
        first, begun_s, told = _read(self._path), time.monotonic(), False
        while (seen := _read(self._path)) is not None and first is not None:
            holder = seen[0]
            if holder is not None and holder.is_gone():
                self._put_away(seen)
                return
            here = holder is not None and holder.machine == _machine()
            if holder is not None and (here or seen != first):
                raise RunError(
                    f"--run-dir {self._run_dir}: process {holder.process} on {holder.host} writes there since "
                    f"{holder.since}; wait until it has ended (touch {self._run_dir}/stop asks it to), or choose "
                    "another folder"
                )
            if time.monotonic() - begun_s > SILENT_S:
                self._put_away(seen)
                return
            if not told and holder is not None:
                self._say(
                    f"{self._run_dir}: process {holder.process} on {holder.host} writes there since {holder.since}, or "
                    f"was lost; waiting {SILENT_S:g} s for a sign of it"
                )
                told = True
            time.sleep(min(BEAT_S, SILENT_S) / 10)

    def _put_away(self, gone: tuple[Holder | None, int]) -> None:
        # Several may find the same writer gone: one at a time looks again, and removes the file if still that one.
        turn = self._path.with_name(f"{NAME}.turn")
        try:
            os.close(os.open(turn, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
        except FileExistsError:
            with suppress(FileNotFoundError):
                if time.time() - turn.stat().st_mtime > SILENT_S:
                    turn.unlink()  # of one that was killed in its turn
            time.sleep(0.01)
            return
        try:
            if _read(self._path) == gone:
                self._path.unlink()
        finally:
            turn.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._end.wait(BEAT_S):
            try:
                held = _read(self._path)
                if held is None:
                    self._take()  # someone has tidied up
                elif held[0] == self._me:
                    os.utime(self._path)
                elif held[0] is not None:
                    print(
                        f"\nerror: {self._run_dir}: this process gave no sign of life for {SILENT_S:g} s, and process "
                        f"{held[0].process} on {held[0].host} writes there now",
                        file=sys.stderr,
                        flush=True,
                    )
                    os._exit(EXIT_ERROR)  # two writers would damage the run
            except OSError:  # a file system that hangs for a moment
                continue


def is_empty(run_dir: Path) -> bool:
    """Whether nothing is in a folder but what a writer that was killed has left."""
    return all(entry.name.startswith(NAME) for entry in run_dir.iterdir())


def _read(path: Path) -> tuple[Holder | None, int] | None:
    """Who holds, and when it gave its last sign; None if nobody does. A holder that is still being written is None."""
    try:
        with path.open(encoding="utf-8") as file:  # opening asks a network file system for its present state
            stamp = os.fstat(file.fileno()).st_mtime_ns
            content = file.read()
    except FileNotFoundError:
        return None
    try:
        return Holder(**json.loads(content)), stamp
    except (ValueError, TypeError):
        return None, stamp


def _begun(process: int) -> float:
    """Clock ticks from the boot of the machine to the process's start, which no change of the clock moves (Linux); else
    seconds since 1970."""
    if platform.system() == "Linux":
        return float(Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])
    return psutil.Process(process).create_time()


def _machine() -> str:
    """Boot and process numbers of this machine."""
    parts = [platform.node()]
    for read in (
        lambda: Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip(),
        lambda: os.readlink("/proc/self/ns/pid"),
    ):
        with suppress(OSError):
            parts.append(read())
    return " ".join(parts)
