"""What a round of labelling comes to: agreement among people and with the judge, time and money, by assistance.

A decision is assisted if its annotator had the network's reviews of that sample opened before. Intervals draw whole
queries, as everywhere: docs/trusting_the_judge.md, "People".
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from statistics import mean, median
from typing import Any

import numpy as np

from evaluators import metrics
from evaluators.statistics.bootstrap import Array, Statistic
from evaluators.statistics.clusters import clusters, keys
from evaluators.statistics.intervals import LOG, draw, smooth
from evaluators.statistics.tables import rate

Decision = Mapping[str, Any]
PARTS = (("with_reviews", True), ("without_reviews", False))


@dataclass(frozen=True)
class Judged:
    """Of a sample, what the summary needs. `cost` in USD; None unless each of its calls was made and priced."""

    query: str
    """What is drawn together: the query, or the cluster of samples without one."""
    winner: int | None
    cost: Decimal | None

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Judged:
        """From a record of `verdicts.jsonl`."""
        reviews = [item for layer in record["layers"] for item in layer]
        costs = [call["cost"] for call in record["roles_calls"]]
        costs += [call["cost"] for item in reviews for call in item["calls"]]
        cost = sum(map(Decimal, costs), Decimal(0)) if costs and None not in costs else None
        return cls(record["query"], record["verdict"]["winner"], cost)


def judged_samples(records: Sequence[Mapping[str, Any]]) -> dict[str, Judged]:
    """Of records of `verdicts.jsonl`, by their ids."""
    names = clusters([keys(record["query"], (record["response1"], record["response2"])) for record in records])
    return {record["id"]: replace(Judged.of(record), query=name) for record, name in zip(records, names, strict=True)}


def summary(
    decisions: Iterable[Decision],
    judged: Mapping[str, Judged],
    *,
    hourly_wage: float | None = None,
    judge_cost: float | None = None,
    draws: int = 10_000,
    seed: int = 0,
) -> dict[str, Any]:
    """Figures of the decisions that stand, of samples in `judged`.

    Args:
        hourly_wage: of an annotator, USD.
        judge_cost: of a sample, USD; if not given, the mean over the samples whose cost is known.

    Returns:
        `among_people`, `judge` and `seconds`, each with and without reviews; `saved`: `times_faster`, `time` and
        `cost`. A figure is {value, low, high, ...}; None for what is not defined or not known; `no_interval` says why
        one has none.
    """
    standing = [one for one in decisions if one["id"] in judged]
    parts = {name: [one for one in standing if one["assisted"] == assisted] for name, assisted in PARTS}
    groups = {"all": standing, **parts}
    known = [float(sample.cost) for sample in judged.values() if sample.cost is not None]
    spent = judge_cost if judge_cost is not None or not known else mean(known)
    queries = [judged[one["id"]].query for one in standing]
    sums = np.array([_time(one) for one in standing], dtype=np.float64).reshape(-1, 4)
    drawn = draw(sums, queries, draws=draws, seed=seed) if standing else None

    withheld: dict[str, str] = {}

    def figure(name: str, statistic: Statistic) -> dict[str, float | None]:
        value = np.nan if drawn is None else float(statistic(drawn.total))
        if drawn is None or np.isnan(value):
            return {"value": None, "low": None, "high": None}
        found = smooth(drawn, statistic, LOG)
        if found.why is not None:
            withheld[name] = found.why
        return {"value": value, "low": found.low, "high": found.high}

    return {
        "annotators": {name: len(labels) for name, labels in sorted(_by_person(standing).items())},
        "among_people": {name: among_people(group) for name, group in groups.items()},
        "judge": {name: _with_judge(group, judged) for name, group in groups.items()},
        "seconds": {
            "with_reviews": {**figure("seconds with reviews", _with), **_middle(parts["with_reviews"])},
            "without_reviews": {**figure("seconds without", _without), **_middle(parts["without_reviews"])},
        },
        "saved": {
            "times_faster": figure("times faster", lambda rows: 1 / _share(rows)),
            "time": _saved(figure("time saved", _share)),
            "cost": None
            if not hourly_wage or spent is None
            else _saved(figure("cost saved", _cost(hourly_wage, spent))),
            "hourly_wage": hourly_wage,
            "judge_cost": spent,
        },
        "no_interval": withheld,
    }


def _saved(ratio: Mapping[str, float | None]) -> dict[str, float | None]:
    """1 - a ratio of costs."""
    ends = {"value": ratio["value"], "low": ratio["high"], "high": ratio["low"]}
    return {name: None if end is None else 1 - end for name, end in ends.items()}


def _time(one: Decision) -> tuple[float, float, float, float]:
    """Seconds and count with reviews, then without."""
    own = (float(one["seconds"]), 1.0)
    return (*own, 0.0, 0.0) if one["assisted"] else (0.0, 0.0, *own)


def _with(rows: Array) -> Array:
    return rate(rows[..., :2])


def _without(rows: Array) -> Array:
    return rate(rows[..., 2:])


def _middle(decisions: Sequence[Decision]) -> dict[str, Any]:
    return {"median": median(one["seconds"] for one in decisions) if decisions else None, "n": len(decisions)}


def _share(rows: Array) -> Array:
    """Mean seconds with reviews over mean seconds without."""
    assisted, alone = _with(rows), _without(rows)
    return np.divide(assisted, alone, out=np.full(np.shape(alone), np.nan), where=(assisted > 0) & (alone > 0))


def _cost(hourly_wage: float, judge_cost: float) -> Statistic:
    """(w t_with + c) / (w t_without), with t the mean seconds and c the judge's cost of a sample."""

    def of(rows: Array) -> Array:
        assisted = _with(rows) * hourly_wage / 3600 + judge_cost
        alone = _without(rows) * hourly_wage / 3600
        return np.divide(assisted, alone, out=np.full(np.shape(alone), np.nan), where=alone > 0)

    return of


def among_people(decisions: Iterable[Decision]) -> dict[str, Any]:
    """`agreement`: share of the `n` pairs of decisions on one sample that are equal; `kappa`: the mean of Cohen's over
    pairs of annotators (Light 1971) where it is defined, `pairs` of them."""
    kappas, same, n = [], 0, 0
    for first, second in itertools.combinations(_by_person(decisions).values(), 2):
        common = sorted(first.keys() & second.keys())
        labels = [[person[key] for key in common] for person in (first, second)]
        same += sum(a == b for a, b in zip(*labels, strict=True))
        n += len(common)
        kappas.append(metrics.cohen_kappa(*labels))
    defined = [kappa for kappa in kappas if kappa is not None]
    kappa = mean(defined) if defined else None
    return {"agreement": same / n if n else None, "kappa": kappa, "n": n, "pairs": len(defined)}


def _with_judge(decisions: Sequence[Decision], judged: Mapping[str, Judged]) -> dict[str, Any]:
    human = [one["label"] for one in decisions]
    judge = [judged[one["id"]].winner for one in decisions]
    return {
        "accuracy": metrics.accuracy(human, judge),
        "kappa": metrics.cohen_kappa(human, judge),
        "n": sum(winner is not None for winner in judge),
        "unscored": judge.count(None),
    }


def _by_person(decisions: Iterable[Decision]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for one in decisions:
        found.setdefault(one["annotator"], {})[one["id"]] = one["label"]
    return found
