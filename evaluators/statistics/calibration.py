"""Choose tie margin, aggregation and weights of reviews on one part of the samples, and report on the other."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluators.aggregation import AGGREGATIONS
from evaluators.errors import RunError
from evaluators.statistics import tables
from evaluators.statistics.compare import paired
from evaluators.statistics.figures import agreement
from evaluators.statistics.reliability import abstain, calibration_error, reliability
from evaluators.statistics.runs import JudgedRun, Sample
from evaluators.statistics.weights import FITTED, Weights
from evaluators.values import Review

_MARGINS = 25


@dataclass(frozen=True)
class Setting:
    """What was chosen, and the kappa that it has on the tuning part."""

    aggregation: str
    tie_margin: float
    on_tuning_part: float


def split(samples: Sequence[Sample], share: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """(to tune on, held out), about `share` of the queries in the first; all samples of a query on one side.

    Raises:
        RunError: one side is empty.
    """

    def place(cluster: str) -> float:
        digest = hashlib.blake2b(repr((seed, cluster)).encode(), digest_size=8).digest()
        return int.from_bytes(digest) / 2**64

    tune = [sample for sample in samples if place(sample.cluster) < share]
    held = [sample for sample in samples if place(sample.cluster) >= share]
    if not tune or not held:
        raise RunError(
            f"{len(samples)} labelled samples of {len({s.cluster for s in samples})} queries cannot be split into "
            f"{share:g} and {1 - share:g}; label more, or give another --share or --seed"
        )
    return tune, held


def calibrate(run: JudgedRun, *, share: float, seed: int, draws: int) -> dict[str, Any]:
    """Settings with the highest kappa on one part (accuracy where kappa is not defined), measured on the other.

    There the one that was chosen is compared with the run's own, sample by sample: `against_before`.

    Raises:
        RunError: as `split`.
    """
    tune, held = split(run.labelled, share, seed)
    usable = _usable(run.samples)
    chosen, tried = choose(tune, usable)
    judged = rejudged(held, chosen)
    bins = reliability(rejudged(tune, chosen), judged)
    return {
        "tuned_on": len(tune),
        "held_out": len(held),
        "seed": seed,
        "share": share,
        "chosen": dataclasses.asdict(chosen),
        "settings_tried": tried,
        "before": agreement(held, draws, seed),
        "after": agreement(judged, draws, seed),
        "against_before": _against(held, held, judged, draws, seed),
        "reliability": bins,
        "calibration_error": calibration_error(bins),
        "abstain": abstain(judged),
        "weights": weighted(tune, held, [name for name in usable if not AGGREGATIONS[name][2]], draws, seed),
    }


def weighted(
    tune: Sequence[Sample], held: Sequence[Sample], unweighted: Sequence[str], draws: int, seed: int
) -> dict[str, Any]:
    """Weights fitted on one part, and on the other the best setting with them against the best without any.

    Returns:
        {"not_fitted": why} where there is nothing to fit.
    """
    try:
        weights = Weights(tune)
    except RunError as error:
        return {"not_fitted": str(error)}
    tune_weighted, held_weighted = ([weights.apply(sample) for sample in part] for part in (tune, held))
    setting, tried = choose(tune_weighted, list(FITTED))
    plain, plain_tried = choose(tune, unweighted)
    judged, judged_plain = rejudged(held_weighted, setting), rejudged(held, plain)
    return {
        "reviews": weights.reviews,
        "right": weights.right,
        "log_odds": weights.log_odds,
        "confidence": weights.confidence,
        "chosen": dataclasses.asdict(setting),
        "unweighted": dataclasses.asdict(plain),
        "settings_tried": {"with": tried, "without": plain_tried},
        "held_out": agreement(judged, draws, seed),
        "unweighted_held_out": agreement(judged_plain, draws, seed),
        "against_unweighted": _against(held, judged_plain, judged, draws, seed),
        "abstain": abstain(judged),
    }


def _against(
    held: Sequence[Sample], before: Sequence[Sample], after: Sequence[Sample], draws: int, seed: int
) -> dict[str, Any]:
    return paired(
        [sample.human for sample in held if sample.human is not None],
        [sample.winner for sample in before],
        [sample.winner for sample in after],
        [sample.cluster for sample in held],
        draws=draws,
        seed=seed,
    )


def choose(samples: Sequence[Sample], aggregations: Sequence[str]) -> tuple[Setting, int]:
    """The first of the best, and how many were tried: aggregations in their order, tie margins from the smallest."""
    tried = [
        Setting(name, margin, _kappa(samples, margins, margin))
        for name in aggregations
        for margins in [_margins(samples, name)]
        for margin in _grid(margins)
    ]
    return max(tried, key=lambda setting: setting.on_tuning_part), len(tried)


def rejudged(samples: Sequence[Sample], setting: Setting) -> list[Sample]:
    """The samples with the verdicts of a setting."""
    return [
        dataclasses.replace(sample, winner=_winner(margin, setting.tie_margin), margin=margin)
        for sample, margin in zip(samples, _margins(samples, setting.aggregation), strict=True)
    ]


def _usable(samples: Sequence[Sample]) -> list[str]:
    stated = any(
        isinstance(item, Review) and item.confidence is not None
        for sample in samples
        for layer in sample.layers
        for item in layer
    )
    return [name for name, (_, _, weighted) in AGGREGATIONS.items() if stated or not weighted]


def _margins(samples: Sequence[Sample], aggregation: str) -> list[float | None]:
    name = FITTED.get(aggregation, aggregation)
    return [sample.verdict(name, 0.0).margin for sample in samples]


def _grid(margins: Sequence[float | None]) -> list[float]:
    """0, and quantiles of the margins that occur: between them no verdict changes."""
    sizes = [abs(margin) for margin in margins if margin is not None]
    return sorted({0.0, *np.quantile(sizes, np.linspace(0, 0.9, _MARGINS)).tolist()}) if sizes else [0.0]


def _winner(margin: float | None, tie_margin: float) -> int | None:
    if margin is None:
        return None
    return 0 if abs(margin) <= tie_margin + 1e-9 else (1 if margin > 0 else 2)


def _kappa(samples: Sequence[Sample], margins: Sequence[float | None], tie_margin: float) -> float:
    human = [sample.human for sample in samples if sample.human is not None]
    judge = [_winner(margin, tie_margin) for margin in margins]
    found = tables.of_counts(Counter(zip(human, judge, strict=True)))
    return (found.accuracy or 0.0) if found.kappa is None else found.kappa
