"""People label the pairs of a run, with the network's reviews at hand: decisions, kept as they are made."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from evaluators import metrics
from evaluators.errors import RunError

DECISIONS = "annotations.jsonl"


def shown_order(annotator: str, sample: str) -> str:
    """ "12" or "21": which response stands first, at random but the same each time for one person and sample."""
    return "12" if hashlib.blake2b(repr((annotator, sample)).encode()).digest()[0] % 2 else "21"


class Decisions:
    """Appended to a file and on the disk before the answer to the browser is sent; the last one of a sample counts."""

    def __init__(self, path: Path) -> None:
        """Raises RunError where a line is no decision; a last line that was cut off by a crash is dropped."""
        self._path = path
        self._lock = threading.Lock()
        self.latest: dict[tuple[str, str], dict[str, Any]] = {}
        content = path.read_bytes() if path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            with path.open("rb+") as file:
                file.truncate(len(whole))
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                found = json.loads(line)
                self.latest[found["annotator"], found["id"]] = found
            except (ValueError, KeyError, TypeError) as error:
                raise RunError(f"{path}: line {number} is no decision; mend or delete it") from error

    def add(self, decision: Mapping[str, Any]) -> None:
        """Write one down."""
        with self._lock, self._path.open("ab") as file:
            file.write(json.dumps(decision, ensure_ascii=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
            self.latest[decision["annotator"], decision["id"]] = dict(decision)


def summary(decisions: Sequence[Mapping[str, Any]], verdicts: Mapping[str, int | None]) -> dict[str, Any]:
    """Agreement among people and with the judge, and time, with and without the reviews opened.

    Returns:
        `among_people`: mean kappa over the pairs of annotators and their common samples; `with_reviews` and
        `without_reviews`: {n, accuracy and kappa against the judge, median seconds}; `time_saved`: 1 - the ratio of the
        medians. None for what is not defined.
    """
    by_person: dict[str, dict[str, int]] = {}
    for one in decisions:
        by_person.setdefault(one["annotator"], {})[one["id"]] = one["label"]
    kappas = []
    for first, second in itertools.combinations(by_person.values(), 2):
        common = sorted(first.keys() & second.keys())
        kappas.append(metrics.cohen_kappa([first[key] for key in common], [second[key] for key in common]))
    known = [kappa for kappa in kappas if kappa is not None]
    parts = {
        name: _part([one for one in decisions if one["assisted"] == assisted], verdicts)
        for name, assisted in (("with_reviews", True), ("without_reviews", False))
    }
    seconds = [parts[name]["median_s"] for name in ("with_reviews", "without_reviews")]
    return {
        "annotators": {name: len(labels) for name, labels in by_person.items()},
        "among_people": sum(known) / len(known) if known else None,
        **parts,
        "time_saved": 1 - seconds[0] / seconds[1] if all(seconds) else None,
    }


def _part(decisions: Sequence[Mapping[str, Any]], verdicts: Mapping[str, int | None]) -> dict[str, Any]:
    human = [one["label"] for one in decisions]
    judge = [verdicts.get(one["id"]) for one in decisions]
    return {
        "n": len(decisions),
        "accuracy_of_judge": metrics.accuracy(human, judge),
        "kappa_with_judge": metrics.cohen_kappa(human, judge),
        "median_s": median(one["seconds"] for one in decisions) if decisions else None,
    }
