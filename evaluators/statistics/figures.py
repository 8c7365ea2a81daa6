"""All figures of one run, each with its count and its interval, as they stand in `metrics.json`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from evaluators.statistics import tables
from evaluators.statistics.baselines import baselines, ceilings
from evaluators.statistics.bootstrap import DRAWS, LEVEL, Statistic, cluster_sums
from evaluators.statistics.intervals import FISHER, LOGIT, Interval, Scale, draw, few, rare, smooth
from evaluators.statistics.position import figure, position, rate, undefined
from evaluators.statistics.runs import JudgedRun, Sample


def score(run: JudgedRun, *, draws: int = DRAWS, seed: int = 0) -> dict[str, Any]:
    """Agreement with people, by family, data set and language too; lines to beat; position, length, what is unscored.

    A figure is {value, low, high, n, clusters, why}: None where there is no value, or no interval, and `why`.
    """
    samples, labelled = run.samples, run.labelled
    human = [sample.human for sample in labelled if sample.human is not None]
    found: dict[str, Any] = {
        "samples": len(samples),
        "labelled": len(labelled),
        "single_responses_left_out": run.single,
        "network": {**run.network.stored(), "guessed": run.guessed},
        "queries": len({sample.query if sample.query.strip() else "" for sample in samples}),
        "without_query": sum(not sample.query.strip() for sample in samples),
        "clusters": len({sample.cluster for sample in samples}),
        "blank_responses": sum(sample.blank for sample in samples),
        "refused": run.refused,
        "bootstrap": {"draws": draws, "seed": seed, "level": LEVEL, "clustered_by": "query"},
        "labels": tables.labels_of([sample.human for sample in labelled if sample.human is not None]),
        "human": dict(sorted(Counter(str(sample.human) for sample in labelled).items())),
        "winners": dict(sorted(Counter(_name(sample.winner) for sample in samples).items())),
        "unscored": unscored(samples),
        "agreement": agreement(labelled, draws, seed),
        "families": _by(labelled, "family", draws, seed),
        "datasets": _by(labelled, "dataset", draws, seed),
        "languages": _by(labelled, "language", draws, seed),
        "length": length(samples),
        "baselines": baselines(human, [sample.lengths for sample in labelled]),
        "ceilings": ceilings(human),
        "position": position(run),
        "never_ties": 0 not in _winners(samples),
    }
    return found


def agreement(samples: Sequence[Sample], draws: int = DRAWS, seed: int = 0) -> dict[str, Any]:
    """Accuracy, macro-F1 and kappa on the scored samples, and on all with the unscored counted as wrong."""
    labelled = [sample for sample in samples if sample.human is not None]
    scored = [sample for sample in labelled if sample.winner is not None]

    def of(some: Sequence[Sample]) -> dict[str, Any]:
        human = [sample.human for sample in some if sample.human is not None]
        return of_verdicts(human, [s.winner for s in some], [s.cluster for s in some], draws, seed)

    found = of(labelled)
    return {"scored": found if len(scored) == len(labelled) else of(scored), "unscored_as_wrong": found}


def of_verdicts(
    human: Sequence[int], judge: Sequence[int | None], clusters: Sequence[str], draws: int = DRAWS, seed: int = 0
) -> dict[str, Any]:
    """Of all these samples; an unscored verdict is wrong. Macro-F1 is the mean over the labels that people use here."""
    n = len(human)
    if not n:
        return {name: undefined("no sample counts") for name in ("accuracy", "macro_f1", "kappa")}
    right = _rows(list(zip(human, judge, strict=True)), lambda pair: (pair[0] == pair[1], True))
    right_in = cluster_sums(right, clusters)
    telling = min(int((right_in[:, 0] < right_in[:, 1]).sum()), int((right_in[:, 0] > 0).sum()))
    drawn = draw(tables.cells(human, judge), clusters, telling=telling, draws=draws, seed=seed)

    def smooth_figure(statistic: Statistic, scale: Scale, why: str | None = None) -> dict[str, Any]:
        value = tables.figure(statistic(drawn.total))
        if value is None:
            return {**undefined("one label is all there is"), "n": n}
        withheld = few(drawn.clusters) or why
        return figure(value, n, Interval(why=withheld) if withheld else smooth(drawn, statistic, scale))

    labels = tables.labels_of(human)
    return {
        "accuracy": rate(right, clusters),
        "macro_f1": smooth_figure(tables.macro_f1(True, labels), LOGIT, rare(human, clusters)),
        "kappa": smooth_figure(tables.kappa(True), FISHER),
    }


def _by(samples: Sequence[Sample], name: str, draws: int, seed: int) -> dict[str, Any]:
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(getattr(sample, name) or "unknown", []).append(sample)
    return {group: agreement(groups[group], draws, seed) for group in sorted(groups)}


def length(samples: Sequence[Sample]) -> dict[str, Any]:
    """Share of decided pairs of unequal length in which the longer response wins, by the judge and by people."""
    clusters = [sample.cluster for sample in samples]
    sides: dict[str, list[int | None]] = {
        "judge_prefers_longer": [sample.winner for sample in samples],
        "people_prefer_longer": [sample.human for sample in samples],
    }
    lengths = [sample.lengths for sample in samples]
    return {
        name: rate(_rows(list(zip(verdicts, lengths, strict=True)), _longer), clusters)
        for name, verdicts in sides.items()
    }


def unscored(samples: Sequence[Sample]) -> dict[str, Any]:
    """How many samples have no verdict, and why; how many reviews failed."""
    rows = _rows(samples, lambda sample: (sample.winner is None, True))
    items = [item for sample in samples for layer in sample.layers for item in layer]
    reasons = Counter(sample.reason or "" for sample in samples if sample.winner is None)
    return {
        "rate": rate(rows, [sample.cluster for sample in samples]),
        "samples": int(rows[:, 0].sum()),
        "reasons": dict(reasons.most_common()),
        "reviews": len(items),
        "unscored_reviews": sum(not hasattr(item, "scores") for item in items),
    }


def _longer(row: tuple[int | None, tuple[int, int]]) -> tuple[float, float]:
    verdict, (length1, length2) = row
    counts = verdict in (1, 2) and length1 != length2
    return counts and (verdict == 1) == (length1 > length2), counts


def _rows(items: Sequence[Any], of: Callable[[Any], tuple[float, float]]) -> tables.Array:
    return np.array([of(item) for item in items], dtype=np.float64).reshape(-1, 2)


def _winners(samples: Sequence[Sample]) -> set[int | None]:
    return {sample.winner for sample in samples} - {None}


def _name(winner: int | None) -> str:
    return "unscored" if winner is None else str(winner)
