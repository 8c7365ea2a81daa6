"""Two judges on the same samples: is the difference more than chance?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from evaluators.errors import RunError
from evaluators.statistics import tables
from evaluators.statistics.bootstrap import DRAWS, LEVEL, Statistic, cluster_sums, interval, resampled
from evaluators.statistics.runs import JudgedRun


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p-value of McNemar's test (1947): of the samples that one judge alone has right, half are each's.

    Args:
        only_first: samples that the first judge has right and the second wrong; `only_second`: the other way round.
    """
    discordant = only_first + only_second
    if not discordant:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(only_first, discordant, 0.5).pvalue)


def paired(
    human: Sequence[int],
    first: Sequence[int | None],
    second: Sequence[int | None],
    queries: Sequence[str],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Any]:
    """Differences (second - first) with intervals from one bootstrap of both, and McNemar's test.

    Unscored verdicts count as wrong, so that both judges answer for the same samples.
    """
    tables_of = [tables.cells(human, first), tables.cells(human, second)]
    width = tables_of[0].shape[1]
    sums = cluster_sums(np.concatenate(tables_of, axis=1), list(queries))
    drawn = resampled(sums, draws=draws, seed=seed) if len(sums) > 1 else None
    total = sums.sum(0)
    found: dict[str, Any] = {}
    ways: dict[str, Statistic] = {
        "accuracy": tables.accuracy(True),
        "macro_f1": tables.macro_f1(True),
        "kappa": tables.kappa(True),
    }
    for name, statistic in ways.items():
        before, after = float(statistic(total[:width])), float(statistic(total[width:]))
        known = not np.isnan(before + after)
        range_ = (
            interval(statistic(drawn[:, width:]) - statistic(drawn[:, :width])) if known and drawn is not None else None
        )
        found[name] = {
            "first": None if np.isnan(before) else before,
            "second": None if np.isnan(after) else after,
            "difference": after - before if known else None,
            "low": None if range_ is None else range_.low,
            "high": None if range_ is None else range_.high,
        }
    right = [(a == person, b == person) for person, a, b in zip(human, first, second, strict=True)]
    only_first = sum(a and not b for a, b in right)
    only_second = sum(b and not a for a, b in right)
    return {
        "samples": len(human),
        "queries": len(sums),
        "bootstrap": {"draws": draws, "seed": seed, "level": LEVEL, "clustered_by": "query"},
        "difference": found,
        "only_first_right": only_first,
        "only_second_right": only_second,
        "mcnemar_p": mcnemar(only_first, only_second),
        "same_verdict": sum(a == b for a, b in zip(first, second, strict=True)) / len(human),
        "error_correlation": _correlation([not a for a, _ in right], [not b for _, b in right]),
    }


def _correlation(one: Sequence[bool], other: Sequence[bool]) -> float | None:
    """Pearson's (phi) of two judges' errors; None where one of them is always right or always wrong."""
    if len(set(one)) < 2 or len(set(other)) < 2:
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
