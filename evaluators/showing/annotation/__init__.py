"""People label the pairs of a run, with the network's reviews at hand: decisions, kept as they are made."""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from evaluators.errors import RunError
from evaluators.storing import json_line, without_half_line

EARLIER = "annotations.jsonl"
"""Everybody's decisions in one file, as earlier versions kept them: read, and no longer written."""


def shown_order(annotator: str, sample: str) -> str:
    """ "12" or "21": which response stands first, at random but the same each time for one person and sample."""
    return "12" if hashlib.blake2b(repr((annotator, sample)).encode()).digest()[0] % 2 else "21"


def file_of(annotator: str) -> str:
    """The name of a person's file; no two people have the same, on no file system."""
    plain = re.sub(r"[^a-z0-9_-]", "_", annotator)[:40]
    apart = "" if plain == annotator else f"-{hashlib.sha256(annotator.encode()).hexdigest()[:8]}"
    return f"annotations-{plain}{apart}.jsonl"


class Standing:
    """What people decided, by annotator and sample: the last word counts, its `seconds` are those of all words."""

    def __init__(self) -> None:
        self.latest: dict[tuple[str, str], dict[str, Any]] = {}
        self._opened: set[tuple[str, str]] = set()

    def read(self, path: Path, *, only: str | None = None) -> None:
        """Take a file's lines, of one annotator if one is named. A last line that is not whole is left out.

        Raises:
            RunError: another line is no decision.
        """
        content = path.read_bytes() if path.exists() else b""
        for number, line in enumerate(content[: content.rfind(b"\n") + 1].split(b"\n")[:-1], start=1):
            try:
                found = json.loads(line)
                if only in (None, found["annotator"]):
                    self.take(found)
            except (ValueError, KeyError, TypeError) as error:
                raise RunError(f"{path}: line {number} is no decision; mend or delete it") from error

    def take(self, line: Mapping[str, Any]) -> None:
        """A decision, or that reviews were opened. Raises KeyError and TypeError where it is neither."""
        key = (line["annotator"], line["id"])
        if line.get("opened"):
            self._opened.add(key)
            return
        before = self.latest.get(key, {"seconds": 0.0})
        found = {name: line[name] for name in ("annotator", "id", "label", "assisted")}
        self.latest[key] = {**found, "seconds": line["seconds"] + before["seconds"]}

    def has_opened(self, annotator: str, sample: str) -> bool:
        """Whether the person has seen the reviews of the sample."""
        return (annotator, sample) in self._opened


def read_decisions(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Those that stand in a run's folder, of all people, also while they label. Raises RunError as `Standing.read`."""
    standing = Standing()
    for path in (folder / EARLIER, *sorted(folder.glob("annotations-*.jsonl"))):
        standing.read(path)
    return standing.latest


class Decisions:
    """One person's, appended to a file of their own.

    A decision is on the disk before the browser gets its answer, so that a crash loses nothing that was shown.
    """

    def __init__(self, folder: Path, annotator: str) -> None:
        """Raises RunError where another process takes them down, or a line is no decision."""
        self.annotator = annotator
        self._path = folder / file_of(annotator)
        self._writing = threading.Lock()
        self._file = FileLock(folder / f".{self._path.stem}.lock", timeout=0)
        try:
            self._file.acquire()
            if self._path.exists():
                without_half_line(self._path)
        except Timeout as error:
            raise RunError(
                f"--annotators {annotator}: another process takes down what they decide; end it, or name others here"
            ) from error
        except OSError as error:
            raise RunError(f"{self._path}: {error.strerror or error}") from error
        self._standing = Standing()
        self._standing.read(folder / EARLIER, only=annotator)
        self._standing.read(self._path)

    @property
    def latest(self) -> dict[str, dict[str, Any]]:
        """Sample -> the decision that stands."""
        return {sample: found for (_, sample), found in self._standing.latest.items()}

    def open_reviews(self, sample: str) -> None:
        """From now on, what is decided on the sample is assisted."""
        with self._writing:
            if not self._standing.has_opened(self.annotator, sample):
                self._write({"annotator": self.annotator, "id": sample, "opened": True, "time": time.time()})

    def add(self, sample: str, label: int, seconds: float) -> None:
        """Write a decision down: 1 or 2, the better response, or 0, a tie; `seconds` after the sample was shown."""
        with self._writing:
            decision = {"annotator": self.annotator, "id": sample, "label": label, "seconds": seconds}
            assisted = self._standing.has_opened(self.annotator, sample)
            shown = {"shown": shown_order(self.annotator, sample), "assisted": assisted}
            self._write({**decision, **shown, "time": time.time()})

    def close(self) -> None:
        """Let other processes write."""
        self._file.release()

    def _write(self, line: dict[str, Any]) -> None:
        with self._path.open("ab") as file:
            file.write(json_line(line))
            file.flush()
            os.fsync(file.fileno())
        self._standing.take(line)
