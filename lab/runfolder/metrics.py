"""`metrics.jsonl`: one JSON object a record, in the order of the steps, whole after any crash."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

NAME = "metrics.jsonl"
SUPERSEDED = "metrics.superseded.jsonl"


class MetricsLog:
    """Appends records; each is on disk as a whole line before the next one is begun."""

    def __init__(self, run_dir: Path) -> None:
        self._file = (run_dir / NAME).open("a", encoding="utf-8")

    def write(self, record: dict[str, Any]) -> None:
        """Append one record; a figure that is not finite becomes null, since JSON has no word for it."""
        plain = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in record.items()
        }
        self._file.write(json.dumps(plain, allow_nan=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


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
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if isinstance(record, dict):
            records.append(record)
        else:
            damaged.append(number)
    if damaged:
        which = f"line {damaged[0]}" if len(damaged) == 1 else f"{len(damaged)} lines (first: {damaged[0]})"
        say(f"{NAME}: {which} cut short or damaged; left out")
    return records


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
    beside.write_text("".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8")
    os.replace(beside, run_dir / NAME)
    return len(later)
