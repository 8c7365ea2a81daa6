"""What a run has come to so far, kept in counts: it needs no more memory for more samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from evaluators.asking.ledger import Bill, Spent
from evaluators.running.folder import has_blank
from evaluators.statistics.tables import of_counts

_REASONS = 200


@dataclass(frozen=True)
class Agreement:
    """On the samples that have a human label and a verdict; unscored ones are counted beside, never as a label."""

    samples: int
    unscored: int
    labels: tuple[int, ...]
    """Those that people use, of 1, 2 and 0 (tie); macro-F1 is the mean over them."""
    accuracy: float | None
    macro_f1: float | None
    kappa: float | None
    """Cohen's; None where it is not defined (no sample, or one label on both sides)."""


def agreement(counts: Mapping[tuple[int, int | None], int]) -> Agreement:
    """The figures of `tables.of_counts` on the scored samples.

    Args:
        counts: (human label, winner; None for unscored) -> number of samples.
    """
    scored = {cell: count for cell, count in counts.items() if cell[1] is not None and count}
    unscored = sum(count for (_, winner), count in counts.items() if winner is None)
    used = {human for human, _ in scored}
    labels = tuple(label for label in (1, 2, 0) if label in used)
    return Agreement(sum(scored.values()), unscored, labels, *of_counts(scored, labels))


class Tally:
    """Sums over the records of `verdicts.jsonl`."""

    def __init__(self) -> None:
        self.samples = 0
        self.winners: Counter[str] = Counter()
        self.unscored_samples: Counter[str] = Counter()
        self.unscored_reviews: Counter[str] = Counter()
        self.reviews = 0
        self.shortened = 0
        self.blank = 0
        self.thoughts = 0
        """Replies before which the model thought, and the characters of their thoughts."""
        self.thoughts_length = 0
        self.suspicious: Counter[str] = Counter()
        self.suspicious_samples = 0
        self.confusion: Counter[tuple[int, int | None]] = Counter()
        self.bill = Bill()
        """What the callers paid, whatever the records hold."""

    def add(self, record: Mapping[str, Any]) -> None:
        """Count a sample."""
        self.samples += 1
        verdict = record["verdict"]
        is_single = record["response2"] is None
        if verdict["scores"] is None:
            self._count(self.unscored_samples, verdict["reason"])
        else:
            self.winners["graded" if is_single else {1: "1", 2: "2", 0: "tie"}[verdict["winner"]]] += 1
        self.shortened += bool(record["shortened"])
        self.blank += has_blank(record)
        self.suspicious.update(sign.partition(": ")[2] for sign in record["suspicious"])
        self.suspicious_samples += bool(record["suspicious"])
        if record["human"] is not None and not is_single:
            self.confusion[int(record["human"]), verdict["winner"]] += 1
        for layer in record["layers"]:
            for item in layer:
                self.reviews += 1
                if "reason" in item:
                    self._count(self.unscored_reviews, item["reason"])
                self._count_thoughts(item["calls"])
        self._count_thoughts(record["roles_calls"])

    @property
    def total(self) -> Spent:
        """All calls and what they took."""
        return self.bill.total

    def metrics(self) -> dict[str, Any]:
        """All of it, for `metrics.json`."""
        return {
            "samples": self.samples,
            "verdicts": dict(self.winners),
            "unscored": dict(self.unscored_samples),
            "reviews": self.reviews,
            "unscored_reviews": dict(self.unscored_reviews),
            "shortened": self.shortened,
            "blank_responses": self.blank,
            "thoughts": {"replies": self.thoughts, "characters": self.thoughts_length},
            "suspicious": {"samples": self.suspicious_samples, **self.suspicious},
            "agreement": asdict(agreement(self.confusion)) if self.confusion else None,
            "confusion": [
                {"human": human, "winner": winner, "samples": count}
                for (human, winner), count in sorted(self.confusion.items(), key=str)
            ],
            "spent": self.total.plain(),
            "by_judge": {name: spent.plain() for name, spent in self.bill.by_judge.items()},
            "by_layer": {
                "roles" if layer == 0 else f"layer {layer}": spent.plain()
                for layer, spent in self.bill.by_layer.items()
            },
        }

    def _count_thoughts(self, calls: Iterable[Mapping[str, Any]]) -> None:
        for call in calls:
            thoughts = call.get("thoughts", "")  # records of earlier versions have none
            self.thoughts += bool(thoughts)
            self.thoughts_length += len(thoughts)

    def _count(self, reasons: Counter[str], reason: str) -> None:
        # Reasons quote replies, so there may be as many as samples; past a number they are counted together.
        reasons[reason if reason in reasons or len(reasons) < _REASONS else "other reasons"] += 1
