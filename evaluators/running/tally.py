"""What a run has come to so far, kept in counts: it needs no more memory for more samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from typing import Any

from evaluators.running.folder import has_blank
from evaluators.statistics.tables import of_counts

_REASONS = 200


@dataclass(frozen=True)
class Agreement:
    """On the samples that have a human label and a verdict; unscored ones are counted beside, never as a label."""

    samples: int
    unscored: int
    labels: tuple[int, ...]
    """Those that people or the judge use, of 1, 2 and 0 (tie); macro-F1 is the mean over them."""
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
    used = {label for cell in scored for label in cell}
    labels = tuple(label for label in (1, 2, 0) if label in used)
    return Agreement(sum(scored.values()), unscored, labels, *of_counts(scored, labels))


@dataclass
class Spent:
    """Calls that were made (not those from the cache), with what they took."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: Decimal = field(default_factory=Decimal)
    unpriced: int = 0
    """Calls without a price, which are not in `cost`."""
    cached: int = 0
    """Calls that the cache answered."""

    def add(self, call: Mapping[str, Any]) -> None:
        """Count a call's record."""
        if call["cached"]:
            self.cached += 1
            return
        self.calls += 1
        if call["usage"] is not None:
            self.prompt_tokens += call["usage"]["prompt"]
            self.completion_tokens += call["usage"]["completion"]
        if call["cost"] is not None:
            self.cost += Decimal(call["cost"])
        elif call["usage"] is not None:
            self.unpriced += 1


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
        self.suspicious: Counter[str] = Counter()
        self.suspicious_samples = 0
        self.confusion: Counter[tuple[int, int | None]] = Counter()
        self.total = Spent()
        self.by_judge: dict[str, Spent] = {}
        self.by_layer: dict[int, Spent] = {}

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
        self._calls(0, record["roles_calls"])
        for number, layer in enumerate(record["layers"], start=1):
            for item in layer:
                self.reviews += 1
                if "reason" in item:
                    self._count(self.unscored_reviews, item["reason"])
                self._calls(number, item["calls"])

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
            "suspicious": {"samples": self.suspicious_samples, **self.suspicious},
            "agreement": asdict(agreement(self.confusion)) if self.confusion else None,
            "confusion": [
                {"human": human, "winner": winner, "samples": count}
                for (human, winner), count in sorted(self.confusion.items(), key=str)
            ],
            "spent": _plain(self.total),
            "by_judge": {name: _plain(spent) for name, spent in self.by_judge.items()},
            "by_layer": {
                "roles" if layer == 0 else f"layer {layer}": _plain(spent)
                for layer, spent in sorted(self.by_layer.items())
            },
        }

    def _calls(self, layer: int, calls: Iterable[Mapping[str, Any]]) -> None:
        for call in calls:
            self.total.add(call)
            self.by_judge.setdefault(call["judge"], Spent()).add(call)
            self.by_layer.setdefault(layer, Spent()).add(call)

    def _count(self, reasons: Counter[str], reason: str) -> None:
        # Reasons quote replies, so there may be as many as samples; past a number they are counted together.
        reasons[reason if reason in reasons or len(reasons) < _REASONS else "other reasons"] += 1


def _plain(spent: Spent) -> dict[str, Any]:
    """With the cost as text, exact; None where no call had a price."""
    unpriced = spent.unpriced and not spent.cost
    return {**asdict(spent), "cost": None if unpriced else str(spent.cost)}
