"""Agreement of verdicts with people, from counts of (human, winner)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from evaluators.metrics import of_counts


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
    """The figures of `metrics.of_counts` on the scored samples.

    Args:
        counts: (human label, winner; None for unscored) -> number of samples.
    """
    scored = {(human, winner): count for (human, winner), count in counts.items() if winner is not None and count}
    unscored = sum(count for (_, winner), count in counts.items() if winner is None)
    used = {label for cell in scored for label in cell}
    labels = tuple(label for label in (1, 2, 0) if label in used)
    return Agreement(sum(scored.values()), unscored, labels, *of_counts(scored, labels))
