"""Is a verdict as often right as its margin promises, and how right is a judge that answers only where it is sure?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from evaluators.statistics.runs import Sample

_BINS = 10


def reliability(tune: Sequence[Sample], held: Sequence[Sample]) -> list[dict[str, Any]]:
    """Predicted against observed: P(the winner is right) by isotonic regression on |margin| of one part, on the other.

    Returns:
        Bins of the held-out samples by predicted probability: {predicted, right, n}; empty where no verdict of one of
        the parts names a winner.
    """
    fitted, shown = (
        [
            (abs(sample.margin), sample.winner == sample.human)
            for sample in part
            if sample.winner in (1, 2) and sample.margin is not None
        ]
        for part in (tune, held)
    )
    if not fitted or not shown:
        return []
    from sklearn.isotonic import IsotonicRegression

    model = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
    model.fit([margin for margin, _ in fitted], [float(right) for _, right in fitted])
    predicted = model.predict([margin for margin, _ in shown])
    right = np.array([ok for _, ok in shown])
    bins = np.minimum((predicted * _BINS).astype(int), _BINS - 1)
    return [
        {
            "predicted": float(predicted[bins == at].mean()),
            "right": float(right[bins == at].mean()),
            "n": int((bins == at).sum()),
        }
        for at in sorted(set(bins.tolist()))
    ]


def calibration_error(bins: Sequence[dict[str, Any]]) -> float | None:
    """Expected calibration error: sum over bins of n / N |right - predicted| (Naeini et al. 2015)."""
    total = sum(bin_["n"] for bin_ in bins)
    return sum(bin_["n"] * abs(bin_["right"] - bin_["predicted"]) for bin_ in bins) / total if total else None


def abstain(samples: Sequence[Sample]) -> list[dict[str, float]]:
    """Accuracy against coverage when the judge answers only where its margin is largest.

    Samples of one margin are answered together. Coverage counts unscored samples as never answered.
    """
    answered = sorted(
        ((abs(sample.margin), sample.winner == sample.human) for sample in samples if sample.margin is not None),
        reverse=True,
    )
    points, right = [], 0
    for count, (margin, is_right) in enumerate(answered, start=1):
        right += is_right
        if count == len(answered) or answered[count][0] < margin:
            points.append({"least_margin": margin, "coverage": count / len(samples), "accuracy": right / count})
    return points
