"""What each role's reviews say by themselves: how often they agree with people, and with the network's verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_LONGEST = 80


@dataclass
class _Counts:
    reviews: int = 0
    unscored: int = 0
    labelled: int = 0
    right: int = 0
    with_verdict: int = 0
    decided: int = 0
    """Of samples that have a verdict."""


class RoleCounts:
    """Counts over the reviews of all layers, by the role's name."""

    def __init__(self) -> None:
        self._roles: dict[str, _Counts] = {}

    def add(self, record: Mapping[str, Any]) -> None:
        """Take one record of `verdicts.jsonl`."""
        names = [str(role["name"]) for role in record["roles"]]
        for item in (item for layer in record["layers"] for item in layer):
            at = item["neuron"] - 1
            name = names[at][:_LONGEST] if at < len(names) else "(no role)"
            counts = self._roles.setdefault(name, _Counts())
            counts.reviews += 1
            if "scores" not in item or len(item["scores"]) < 2:
                counts.unscored += "scores" not in item
                continue
            first, second = item["scores"]
            vote = 1 if first > second else 2 if second > first else 0
            if record["verdict"]["winner"] is not None:
                counts.decided += 1
                counts.with_verdict += vote == record["verdict"]["winner"]
            if record["human"] is not None:
                counts.labelled += 1
                counts.right += vote == record["human"]

    def table(self) -> list[dict[str, Any]]:
        """By the number of reviews, most first."""
        rows = sorted(self._roles.items(), key=lambda row: (-row[1].reviews, row[0]))
        return [
            {
                "role": name,
                "reviews": counts.reviews,
                "unscored": counts.unscored,
                "accuracy": counts.right / counts.labelled if counts.labelled else None,
                "agrees_with_verdict": counts.with_verdict / counts.decided if counts.decided else None,
            }
            for name, counts in rows
        ]
