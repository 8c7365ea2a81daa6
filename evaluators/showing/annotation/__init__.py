"""People label the pairs of a run, with the network's reviews at hand: decisions, kept as they are made."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evaluators.errors import RunError

DECISIONS = "annotations.jsonl"


def shown_order(annotator: str, sample: str) -> str:
    """ "12" or "21": which response stands first, at random but the same each time for one person and sample."""
    return "12" if hashlib.blake2b(repr((annotator, sample)).encode()).digest()[0] % 2 else "21"


class Decisions:
    """Appended to a file and on the disk before the browser gets its answer, so that a crash loses nothing shown.

    `latest` has the last decision of each annotator and sample; its `seconds` are those of all that they made on it.
    """

    def __init__(self, path: Path) -> None:
        """Raises RunError where a line is no decision; a last line that was cut off by a crash is dropped."""
        self._path = path
        self._lock = threading.Lock()
        self.latest: dict[tuple[str, str], dict[str, Any]] = {}
        self._opened: set[tuple[str, str]] = set()
        content = path.read_bytes() if path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            with path.open("rb+") as file:
                file.truncate(len(whole))
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                self._take(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise RunError(f"{path}: line {number} is no decision; mend or delete it") from error

    def open_reviews(self, annotator: str, sample: str) -> None:
        """From now on, what this annotator decides on the sample is assisted."""
        with self._lock:
            if (annotator, sample) not in self._opened:
                self._write({"annotator": annotator, "id": sample, "opened": True, "time": time.time()})

    def add(self, annotator: str, sample: str, label: int, seconds: float) -> None:
        """Write a decision down: 1 or 2, the better response, or 0, a tie; `seconds` after the sample was shown."""
        with self._lock:
            decision = {"annotator": annotator, "id": sample, "label": label, "seconds": seconds}
            shown = {"shown": shown_order(annotator, sample), "assisted": (annotator, sample) in self._opened}
            self._write({**decision, **shown, "time": time.time()})

    def _write(self, line: dict[str, Any]) -> None:
        with self._path.open("ab") as file:
            file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._take(line)

    def _take(self, line: Mapping[str, Any]) -> None:
        key = (line["annotator"], line["id"])
        if line.get("opened"):
            self._opened.add(key)
            return
        before = self.latest.get(key, {"seconds": 0.0})
        found = {name: line[name] for name in ("annotator", "id", "label", "assisted")}
        self.latest[key] = {**found, "seconds": line["seconds"] + before["seconds"]}
