"""`metrics.jsonl`: one JSON object a record, in the order of the steps, whole after any crash."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

NAME = "metrics.jsonl"
SUPERSEDED = "metrics.superseded.jsonl"


class MetricsLog:
    """Appends records; each is on disk as a whole line before the next one is begun. What a full disk does not take
    waits in memory, and is tried again with the next record."""

    def __init__(self, run_dir: Path) -> None:
        cut = _ends_in_mid_line(run_dir / NAME)
        self._file = (run_dir / NAME).open("ab", buffering=0)
        self._waiting = b"\n" if cut else b""  # cut by a crash: what comes now must not be lost with it

    def write(self, record: dict[str, Any]) -> None:
        """Append one record; a figure that is not finite becomes null, since JSON has no word for it.

        Raises:
            OSError: it waits in memory.
        """
        plain = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in record.items()
        }
        self._waiting += json.dumps(plain, allow_nan=False).encode() + b"\n"
        self._write()

    def _write(self) -> None:
        size = os.fstat(self._file.fileno()).st_size
        rest = self._waiting
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError:
            with suppress(OSError):
                self._file.truncate(size)  # no half line stays
            raise
        self._waiting = b""

    def sync(self) -> None:
        """Bring what was written to disk, so that a power cut leaves no holes in it. Raises OSError as `write`."""
        self._write()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file. Raises OSError as `write`."""
        with self._file:
            self.sync()


def read(run_dir: Path, say: Callable[[str], None] = lambda text: None) -> list[dict[str, Any]]:
    """All whole records of a run, in the order of the file; none where there is no file yet.

    Args:
        run_dir: the run's folder.
        say: is told of lines that are left out, since a crash or something else has damaged them.
    """
    path = run_dir / NAME
    records, damaged = [], []
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        if (record := _record(line)) is not None:
            records.append(record)
        else:
            damaged.append(number)
    if damaged:
        which = f"line {damaged[0]}" if len(damaged) == 1 else f"{len(damaged)} lines (first: {damaged[0]})"
        say(f"{NAME}: {which} cut short or damaged; left out")
    return records


def _record(line: bytes) -> dict[str, Any] | None:
    """A line's record; None if it is none, or says that it is of a step or of so many tokens as cannot be."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    whole = all(type(record.get(name, 0)) is int and record.get(name, 0) >= 0 for name in ("step", "tokens"))
    return record if whole else None


def _ends_in_mid_line(path: Path) -> bool:
    if not path.exists() or not path.stat().st_size:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() != b"\n"


def rewind(run_dir: Path, step: int, say: Callable[[str], None] = lambda text: None) -> int:
    """Before a run goes on from `step`, move the records after it aside, to `metrics.superseded.jsonl`.

    Args:
        run_dir: the run's folder.
        step: the last that is kept.
        say: as for `read`.

    Returns:
        How many records were moved.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    records = read(run_dir, say)
    later = [record for record in records if record.get("step", 0) > step]
    kept = [record for record in records if record.get("step", 0) <= step]
    if later:
        with (run_dir / SUPERSEDED).open("a", encoding="utf-8") as aside:
            aside.writelines(json.dumps(record) + "\n" for record in later)
    beside = run_dir / f".{NAME}.new"
    with beside.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(record) + "\n" for record in kept)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, run_dir / NAME)
    return len(later)
