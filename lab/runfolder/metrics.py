"""`metrics.jsonl`: one JSON object a record, in the order of the steps, whole after any crash."""

from __future__ import annotations

import json
import math
import os
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


def read(run_dir: Path) -> list[dict[str, Any]]:
    """All whole records of a run; a last line that a crash cut short is left out."""
    path = run_dir / NAME
    if not path.exists():
        return []
    records = []
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise ValueError(f"{path}:{number}: not a JSON object ({error})") from error
    return records


def rewind(run_dir: Path, step: int) -> int:
    """Before a run goes on from `step`, move the records after it aside, to `metrics.superseded.jsonl`.

    Returns:
        How many records were moved.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    records = read(run_dir)
    later = [record for record in records if record["step"] > step]
    kept = [record for record in records if record["step"] <= step]
    if later:
        with (run_dir / SUPERSEDED).open("a", encoding="utf-8") as aside:
            aside.writelines(json.dumps(record) + "\n" for record in later)
    beside = run_dir / f".{NAME}.new"
    beside.write_text("".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8")
    os.replace(beside, run_dir / NAME)
    return len(later)
