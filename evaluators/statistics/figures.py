"""All figures of one run, each with its count and its interval, as they stand in `metrics.json`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from evaluators.statistics import tables
from evaluators.statistics.baselines import baselines, ceilings
from evaluators.statistics.bootstrap import DRAWS, LEVEL, drawn, interval
from evaluators.statistics.runs import JudgedRun, Sample


def score(run: JudgedRun, *, draws: int = DRAWS, seed: int = 0) -> dict[str, Any]:
    """Agreement with people, by family, data set and language too; lines to beat; position, length, what is unscored.

    A figure is {value, low, high, n}: low and high None where no interval can be had.
    """
    samples, labelled = run.samples, run.labelled
    human = [sample.human for sample in labelled if sample.human is not None]
    found: dict[str, Any] = {
        "samples": len(samples),
        "labelled": len(labelled),
        "single_responses_left_out": run.single,
        "queries": len({sample.query if sample.query.strip() else "" for sample in samples}),
        "without_query": sum(not sample.query.strip() for sample in samples),
        "clusters": len({sample.cluster for sample in samples}),
        "blank_responses": sum(sample.blank for sample in samples),
        "refused": run.refused,
        "bootstrap": {"draws": draws, "seed": seed, "level": LEVEL, "clustered_by": "query"},
        "labels": sorted({sample.human for sample in labelled} | _winners(labelled)),
        "human": dict(sorted(Counter(str(sample.human) for sample in labelled).items())),
        "winners": dict(sorted(Counter(_name(sample.winner) for sample in samples).items())),
        "unscored": unscored(samples, draws, seed),
        "agreement": agreement(labelled, draws, seed),
        "families": _by(labelled, "family", draws, seed),
        "datasets": _by(labelled, "dataset", draws, seed),
        "languages": _by(labelled, "language", draws, seed),
        "length": length(samples, draws, seed),
        "baselines": baselines(human, [sample.lengths for sample in labelled]),
        "ceilings": ceilings(human),
        "never_ties": 0 not in _winners(samples),
    }
    if run.both_orders:
        found["position"] = position(run, draws, seed)
    return found


def agreement(samples: Sequence[Sample], draws: int = DRAWS, seed: int = 0) -> dict[str, Any]:
    """Accuracy, macro-F1 and kappa on the scored samples, and on all with the unscored counted as wrong."""
    human = [sample.human for sample in samples if sample.human is not None]
    judge = [sample.winner for sample in samples if sample.human is not None]
    clusters = [sample.cluster for sample in samples if sample.human is not None]
    rows = tables.cells(human, judge)
    sums = drawn(rows, clusters, draws=draws, seed=seed)
    found: dict[str, Any] = {}
    ways = (
        ("scored", False, sum(verdict is not None for verdict in judge)),
        ("unscored_as_wrong", True, len(judge)),
    )
    for name, wrong, n in ways:
        figures = (
            ("accuracy", tables.accuracy(wrong)),
            ("macro_f1", tables.macro_f1(wrong)),
            ("kappa", tables.kappa(wrong)),
        )
        found[name] = {key: _figure(n, rows, way, sums) for key, way in figures}
    return found


def _by(samples: Sequence[Sample], name: str, draws: int, seed: int) -> dict[str, Any]:
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(getattr(sample, name) or "unknown", []).append(sample)
    return {group: agreement(groups[group], draws, seed) for group in sorted(groups)}


def position(run: JudgedRun, draws: int = DRAWS, seed: int = 0) -> dict[str, Any]:
    """Verdicts of the reviews of each order alone: do they agree, and do they prefer what is shown first?"""
    own = (run.aggregation, run.tie_margin)
    order12 = [sample.in_order("12", *own) for sample in run.samples]
    order21 = [sample.in_order("21", *own) for sample in run.samples]
    clusters = [sample.cluster for sample in run.samples]
    pairs = list(zip(order12, order21, strict=True))
    agree = _rows(pairs, lambda pair: (pair[0] == pair[1], True))
    first = _rows(pairs, lambda pair: ((pair[0] == 1) + (pair[1] == 2), sum(v in (1, 2) for v in pair)))
    return {
        "consistency": _rate(len(pairs), agree, clusters, draws, seed),
        "first_preferred": _rate(int(first[:, 1].sum()), first, clusters, draws, seed),
        "order12": dict(sorted(Counter(map(_name, order12)).items())),
        "order21": dict(sorted(Counter(map(_name, order21)).items())),
    }


def length(samples: Sequence[Sample], draws: int = DRAWS, seed: int = 0) -> dict[str, Any]:
    """Share of decided pairs of unequal length in which the longer response wins, by the judge and by people."""
    clusters = [sample.cluster for sample in samples]
    lengths = [sample.lengths for sample in samples]
    sides: dict[str, list[int | None]] = {
        "judge_prefers_longer": [sample.winner for sample in samples],
        "people_prefer_longer": [sample.human for sample in samples],
    }
    found = {}
    for name, verdicts in sides.items():
        rows = _rows(list(zip(verdicts, lengths, strict=True)), _longer)
        found[name] = _rate(int(rows[:, 1].sum()), rows, clusters, draws, seed)
    return found


def unscored(samples: Sequence[Sample], draws: int = DRAWS, seed: int = 0) -> dict[str, Any]:
    """How many samples have no verdict, and why; how many reviews failed."""
    rows = _rows(samples, lambda sample: (sample.winner is None, True))
    items = [item for sample in samples for layer in sample.layers for item in layer]
    reasons = Counter(sample.reason or "" for sample in samples if sample.winner is None)
    return {
        "rate": _rate(len(samples), rows, [sample.cluster for sample in samples], draws, seed),
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


def _rate(n: int, rows: tables.Array, clusters: Sequence[str], draws: int, seed: int) -> dict[str, Any]:
    return _figure(n, rows, tables.rate, drawn(rows, clusters, draws=draws, seed=seed))


def _figure(n: int, rows: tables.Array, statistic: tables.Statistic, sums: tables.Array | None) -> dict[str, Any]:
    value = tables.figure(statistic(rows.sum(0)))
    found = None if value is None or sums is None else interval(statistic(sums))
    ends = {"low": None, "high": None} if found is None else asdict(found)
    return {"value": value, "low": ends["low"], "high": ends["high"], "n": n}


def _winners(samples: Sequence[Sample]) -> set[int | None]:
    return {sample.winner for sample in samples} - {None}


def _name(winner: int | None) -> str:
    return "unscored" if winner is None else str(winner)
