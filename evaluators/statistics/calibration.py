"""Choose a tie margin, an aggregation and confidence weights on one part of the samples, and report on the other."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from evaluators import metrics
from evaluators.aggregation import AGGREGATIONS
from evaluators.errors import RunError
from evaluators.reviews import Review
from evaluators.statistics.runs import JudgedRun, Sample
from evaluators.statistics.score import agreement

_MARGINS = 25
_BINS = 10


def split(samples: Sequence[Sample], share: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """(to tune on, held out), about `share` of the queries in the first; all samples of a query on one side.

    Raises:
        RunError: one side is empty.
    """

    def place(query: str) -> float:
        digest = hashlib.blake2b(repr((seed, query)).encode(), digest_size=8).digest()
        return int.from_bytes(digest) / 2**64

    tune = [sample for sample in samples if place(sample.query) < share]
    held = [sample for sample in samples if place(sample.query) >= share]
    if not tune or not held:
        raise RunError(
            f"{len(samples)} labelled samples of {len({s.query for s in samples})} queries cannot be split into "
            f"{share:g} and {1 - share:g}; label more, or give another --share or --seed"
        )
    return tune, held


def calibrate(run: JudgedRun, *, share: float, seed: int, draws: int) -> dict[str, Any]:
    """Settings with the highest kappa on one part (accuracy where kappa is not defined), measured on the other.

    Raises:
        RunError: as `split`.
    """
    tune, held = split(run.labelled, share, seed)
    tried = [
        (aggregation, margin, _kappa(tune, aggregation, margin))
        for aggregation in _usable(run.samples)
        for margin in _margins(tune, aggregation)
    ]
    # The first of the best: the run's own order of aggregations, and the smallest margin.
    aggregation, margin, best = max(tried, key=lambda row: row[2])
    before = agreement(held, draws, seed)
    judged = [_rejudged(sample, aggregation, margin) for sample in held]
    return {
        "tuned_on": len(tune),
        "held_out": len(held),
        "seed": seed,
        "share": share,
        "chosen": {"aggregation": aggregation, "tie_margin": margin, "on_tuning_part": best},
        "settings_tried": len(tried),
        "before": before,
        "after": agreement(judged, draws, seed),
        "reliability": reliability(tune, held, aggregation, margin),
        "abstain": abstain(judged),
    }


def _usable(samples: Sequence[Sample]) -> list[str]:
    stated = any(
        isinstance(item, Review) and item.confidence is not None
        for sample in samples
        for layer in sample.layers
        for item in layer
    )
    return [name for name, (_, _, weighted) in AGGREGATIONS.items() if stated or not weighted]


def _margins(samples: Sequence[Sample], aggregation: str) -> list[float]:
    """0, and quantiles of the margins that occur: between them no verdict changes."""
    found = [sample.verdict(aggregation, 0.0).margin for sample in samples]
    sizes = [abs(margin) for margin in found if margin is not None]
    return sorted({0.0, *np.quantile(sizes, np.linspace(0, 0.9, _MARGINS)).tolist()}) if sizes else [0.0]


def _rejudged(sample: Sample, aggregation: str, tie_margin: float) -> Sample:
    verdict = sample.verdict(aggregation, tie_margin)
    return dataclasses.replace(sample, winner=verdict.winner, margin=verdict.margin)


def _kappa(samples: Sequence[Sample], aggregation: str, tie_margin: float) -> float:
    human = [sample.human for sample in samples if sample.human is not None]
    judge = [sample.verdict(aggregation, tie_margin).winner for sample in samples]
    kappa = metrics.cohen_kappa(human, judge, unscored="wrong")
    return (metrics.accuracy(human, judge, unscored="wrong") or 0.0) if kappa is None else kappa


def reliability(
    tune: Sequence[Sample], held: Sequence[Sample], aggregation: str, tie_margin: float
) -> list[dict[str, Any]]:
    """Stated against observed: P(the winner is right) by isotonic regression on |margin| of one part, on the other.

    Returns:
        Bins of the held-out samples by predicted probability: {predicted, right, n}; empty where no verdict of the
        tuning part names a winner.
    """
    fitted, shown = (
        [
            (abs(judged.margin), judged.winner == judged.human)
            for judged in (_rejudged(sample, aggregation, tie_margin) for sample in part)
            if judged.winner in (1, 2) and judged.margin is not None
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
