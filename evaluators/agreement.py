"""Agreement of verdicts with people, from counts of (human, winner)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Agreement:
    """On the samples that have a human label and a verdict; unscored ones are counted beside, never as a label."""

    samples: int
    unscored: int
    labels: tuple[int, ...]
    """1, 2, and 0 (tie) if people or the judge say it."""
    accuracy: float | None
    macro_f1: float | None
    kappa: float | None
    """Cohen's; None where it is not defined (no sample, or one label only on both sides)."""


def agreement(counts: Mapping[tuple[int, int | None], int]) -> Agreement:
    """Accuracy, macro-F1 over `labels` and Cohen's kappa.

    Args:
        counts: (human label, winner; None for unscored) -> number of samples.
    """
    scored = {pair: count for pair, count in counts.items() if pair[1] is not None and count}
    unscored = sum(count for (_, winner), count in counts.items() if winner is None)
    labels = tuple(label for label in (1, 2, 0) if label or any(0 in pair for pair in scored))
    if not scored:
        return Agreement(0, unscored, labels, None, None, None)
    # Late: it takes a second, which --help should not.
    from sklearn.metrics import accuracy_score, cohen_kappa_score, f1_score

    human = [pair[0] for pair in scored]
    judge = [pair[1] for pair in scored]
    weights = list(scored.values())
    # sklearn divides by the expected disagreement, which is 0 where one label is all there is.
    defined = len(set(human) | set(judge)) > 1
    kappa = float(cohen_kappa_score(human, judge, sample_weight=weights)) if defined else math.nan
    return Agreement(
        sum(weights),
        unscored,
        labels,
        float(accuracy_score(human, judge, sample_weight=weights)),
        float(f1_score(human, judge, labels=labels, average="macro", sample_weight=weights, zero_division=0.0)),
        None if math.isnan(kappa) else kappa,
    )
