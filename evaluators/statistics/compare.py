"""Two judges on the same samples: is the difference more than chance?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from evaluators.errors import RunError
from evaluators.statistics import tables
from evaluators.statistics.bootstrap import DRAWS, LEVEL, Array, Statistic
from evaluators.statistics.intervals import (
    LEAST_CLUSTERS,
    Interval,
    design_effect,
    difference_of_shares,
    draw,
    few,
    rare,
    smooth,
)
from evaluators.statistics.runs import JudgedRun
from evaluators.statistics.signs import mcnemar


def paired(
    human: Sequence[int],
    first: Sequence[int | None],
    second: Sequence[int | None],
    clusters: Sequence[str],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Any]:
    """Differences (second - first) with intervals, and McNemar's test, both by cluster.

    Unscored verdicts count as wrong, so that both judges answer for the same samples; they agree with nothing.
    """
    right = [
        np.array([said == person for person, said in zip(human, of, strict=True)], float) for of in (first, second)
    ]
    gained, lost = right[1] * (1 - right[0]), right[0] * (1 - right[1])
    counts = len(set(clusters))
    telling = len({cluster for cluster, apart in zip(clusters, gained + lost, strict=True) if apart})
    drawn = draw(
        np.concatenate([tables.cells(human, first), tables.cells(human, second)], axis=1),
        clusters,
        telling=telling,
        draws=draws,
        seed=seed,
    )

    def difference(statistic: Statistic, interval: Interval | None = None) -> dict[str, Any]:
        before, after = (float(statistic(part)) for part in np.split(drawn.total, 2))
        known = not np.isnan(before + after)
        if interval is None and known:
            interval = smooth(drawn, lambda sums: _second(statistic, sums) - _first(statistic, sums))
        found = interval if known and interval is not None else Interval(why="it is not defined for both")
        return {
            "first": None if np.isnan(before) else before,
            "second": None if np.isnan(after) else after,
            "difference": after - before if known else None,
            "low": found.low,
            "high": found.high,
            "why": found.why,
        }

    why = few(counts) or rare(human, clusters)
    p = mcnemar(lost.astype(bool).tolist(), gained.astype(bool).tolist(), clusters)
    both = [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
    return {
        "samples": len(human),
        "queries": counts,
        "bootstrap": {"draws": draws, "seed": seed, "level": LEVEL, "clustered_by": "query"},
        "difference": {
            "accuracy": difference(tables.accuracy(True), difference_of_shares(right[0], right[1], clusters)),
            "macro_f1": difference(
                tables.macro_f1(True, tables.labels_of(human)), Interval(why=why, clusters=counts) if why else None
            ),
            "kappa": difference(tables.kappa(True)),
        },
        "only_first_right": int(lost.sum()),
        "only_second_right": int(gained.sum()),
        "design_effect": design_effect(gained, lost, clusters) if counts >= LEAST_CLUSTERS else None,
        "mcnemar_p": p.robust if counts >= LEAST_CLUSTERS else p.exact,
        "mcnemar_exact_p": p.exact,
        "both_scored": len(both),
        "same_verdict": sum(a == b for a, b in both) / len(both) if both else None,
        "error_correlation": _correlation(right[0], right[1]),
    }


def _first(statistic: Statistic, sums: Array) -> Array:
    return statistic(sums[..., : sums.shape[-1] // 2])


def _second(statistic: Statistic, sums: Array) -> Array:
    return statistic(sums[..., sums.shape[-1] // 2 :])


def _correlation(one: Array, other: Array) -> float | None:
    """Pearson's (phi) of two judges' errors; None where one of them is always right or always wrong."""
    if one.std() == 0 or other.std() == 0:
        return None
    return float(np.corrcoef(one, other)[0, 1])


def compare(first: JudgedRun, second: JudgedRun, *, draws: int = DRAWS, seed: int = 0) -> dict[str, Any]:
    """`paired` on the labelled samples that both runs judged.

    Raises:
        RunError: they share none, or under one id stand different samples.
    """
    others = {sample.id: sample for sample in second.samples}
    rows = [(sample, others[sample.id]) for sample in first.labelled if sample.id in others]
    for one, other in rows:
        if one.digest != other.digest:
            raise RunError(f"{first.path} and {second.path} judge different samples under the id {one.id!r}")
    if not rows:
        raise RunError(f"{first.path} and {second.path} have no labelled sample in common")
    return {
        "first": str(first.path),
        "second": str(second.path),
        "only_in_one": len(first.labelled) + len(second.labelled) - 2 * len(rows),
        **paired(
            [one.human for one, _ in rows if one.human is not None],
            [one.winner for one, _ in rows],
            [other.winner for _, other in rows],
            [one.cluster for one, _ in rows],
            draws=draws,
            seed=seed,
        ),
    }
