"""What the order in which two responses are shown does: to the judge, and to the network's verdicts.

The judge's bias is seen in layer 1 alone, where a review has read nothing but the sample. From layer 2 on, reviews of
either order have read reviews of both, so that the two orders agree because they have talked, not because the judge is
fair. The network's verdict is of one order only where no layer has read both; else its bias is seen in how often it
names response 1, beside people.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from evaluators.statistics.bootstrap import Array
from evaluators.statistics.intervals import Interval, difference_of_shares, share
from evaluators.statistics.runs import JudgedRun, Sample

ONE_ORDER = "the judge saw one order only"


def position(run: JudgedRun) -> dict[str, Any]:
    """Position bias of the judge (layer 1), and what is known of the network's.

    Returns:
        `consistency`, `first_preferred`, `order12`, `order21` and `unscored`, of layer 1; `layers`: for each layer the
        first two, or why they are withheld; `network`: the same of the verdict, how often it names response 1, and how
        often it is right where the two orders of layer 1 differ. A figure is {value, low, high, n, clusters, why}.
    """
    judge = _of_layer_1(run)
    names = ("consistency", "first_preferred")
    own = {name: judge[name] for name in names}
    depth = max((len(sample.layers) for sample in run.samples), default=0)
    both = [name for name in ("12", "21") if any(_in(sample, name) for sample in run.samples)] == ["12", "21"]
    layers: dict[str, Any] = {"1": own}
    for layer in range(2, depth + 1):
        layers[str(layer)] = {name: undefined(_mixed(layer) if both else ONE_ORDER) for name in names}
    verdict = own if depth <= 1 else {name: undefined(_mixed(2) if both else ONE_ORDER) for name in names}
    return {**judge, "layers": layers, "network": {**verdict, **_response_1(run.labelled), **_conflicts(run)}}


def undefined(why: str) -> dict[str, Any]:
    """A figure that is withheld."""
    return figure(None, 0, Interval(why=why))


def figure(value: float | None, n: int, interval: Interval) -> dict[str, Any]:
    """A figure as it stands in the results; `why` says what there is no value or no interval for."""
    return {
        "value": value,
        "low": None if value is None else interval.low,
        "high": None if value is None else interval.high,
        "n": n,
        "clusters": interval.clusters,
        "why": interval.why,
    }


def rate(rows: Array, clusters: Sequence[str], why: str = "no sample counts") -> dict[str, Any]:
    """A share, from x and n of each sample."""
    n = int(rows[:, 1].sum())
    if not n:
        return undefined(why)
    return figure(float(rows[:, 0].sum() / n), n, share(rows, clusters))


def _mixed(layer: int) -> str:
    return f"the reviews of layer {layer} have read those of both orders"


def _in(sample: Sample, order: str) -> bool:
    return bool(sample.layers) and any(item.order == order for item in sample.layers[0])


def _orders(run: JudgedRun) -> list[tuple[int | None, int | None]]:
    """Layer 1's verdict of each order alone, under the run's aggregation and tie margin."""
    own = (run.aggregation, run.tie_margin)
    return [(sample.in_order("12", *own), sample.in_order("21", *own)) for sample in run.samples]


def _of_layer_1(run: JudgedRun) -> dict[str, Any]:
    found = _orders(run)
    clusters = [sample.cluster for sample in run.samples]
    scored = [None not in pair for pair in found]
    agree = np.array([(both and pair[0] == pair[1], both) for pair, both in zip(found, scored, strict=True)], float)
    first = np.array([((a == 1) + (b == 2), (a in (1, 2)) + (b in (1, 2))) for a, b in found], float)
    why = "no sample is scored in both orders"
    if not any(_in(sample, "21") for sample in run.samples):
        agree, first, why = np.zeros_like(agree), np.zeros_like(first), ONE_ORDER
    return {
        "consistency": rate(agree, clusters, why),
        "first_preferred": rate(first, clusters, why),
        "unscored": len(scored) - sum(scored),
        "order12": _counts([pair[0] for pair in found]),
        "order21": _counts([pair[1] for pair in found]),
    }


def _counts(winners: Sequence[int | None]) -> dict[str, int]:
    return dict(sorted(Counter("unscored" if winner is None else str(winner) for winner in winners).items()))


def _response_1(labelled: Sequence[Sample]) -> dict[str, Any]:
    """How often the verdict and people name response 1, of the samples where both name a winner."""
    decided = [sample for sample in labelled if sample.human in (1, 2) and sample.winner in (1, 2)]
    clusters = [sample.cluster for sample in decided]
    sides = [
        np.array([side == 1 for side in of], float) for of in zip(*((s.human, s.winner) for s in decided), strict=True)
    ]
    if not sides:
        why = "no sample where judge and people name a winner"
        return {name: undefined(why) for name in ("names_response1", "people_name_response1", "difference")}
    people, judge = sides
    one = np.ones_like(people)
    difference = difference_of_shares(people, judge, clusters)
    return {
        "names_response1": rate(np.stack([judge, one], axis=1), clusters),
        "people_name_response1": rate(np.stack([people, one], axis=1), clusters),
        "difference": figure(float(judge.mean() - people.mean()), len(decided), difference),
    }


def _conflicts(run: JudgedRun) -> dict[str, Any]:
    """How often the verdict is right where layer 1 says one thing in one order and another in the other."""
    rows = [
        (sample.winner == sample.human, True)
        for sample, (a, b) in zip(run.samples, _orders(run), strict=True)
        if sample.human is not None and a is not None and b is not None and a != b
    ]
    clusters = [
        sample.cluster
        for sample, (a, b) in zip(run.samples, _orders(run), strict=True)
        if sample.human is not None and a is not None and b is not None and a != b
    ]
    found = np.array(rows, float).reshape(-1, 2)
    return {"right_where_orders_differ": rate(found, clusters, "no labelled sample on which the orders differ")}
