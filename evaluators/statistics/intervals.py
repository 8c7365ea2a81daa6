"""Intervals of figures whose samples come in clusters (those of one query), because their errors are related.

A share has Wilson's interval (1927) of n / deff samples, deff being the design effect: how many times the variance over
clusters exceeds that of as many unrelated samples (Kish 1965). Everything else has value +- t s, on a scale on which
it is about normal, with s the bootstrap's standard error over clusters. t is Student's with clusters - 1 degrees of
freedom (Korn & Graubard 1998), so that 20 clusters are no more believed than they should be.

Where fewer than `LEAST_WITH` clusters hold the rarer outcome, the design effect cannot be told from the data. All
samples of a cluster then count as one: deff = sum m^2 / sum m for clusters of m samples. Below `LEAST_CLUSTERS`
clusters no interval is given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from evaluators.statistics.bootstrap import DRAWS, LEVEL, Array, Statistic, cluster_sums, resampled

LEAST_CLUSTERS = 10
LEAST_WITH = 5
LEAST_EFFECT = 0.5
"""A design effect below 1 is mostly luck; queries that happen to be all alike must not pass for certainty."""
_MOST_UNDEFINED = 0.05


@dataclass(frozen=True)
class Interval:
    """`low` and `high`, or `why` there are none."""

    low: float | None = None
    high: float | None = None
    why: str | None = None
    clusters: int = 0


@dataclass(frozen=True)
class Scale:
    """A figure is about normal as `there(figure)`; `back` is the inverse, `slope` the derivative of `there`."""

    there: Callable[[float], float]
    back: Callable[[float], float]
    slope: Callable[[float], float]
    low: float
    high: float
    """The figure's range; at an end of it there is no interval."""


PLAIN = Scale(lambda x: x, lambda z: z, lambda x: 1.0, -math.inf, math.inf)
LOG = Scale(math.log, math.exp, lambda x: 1 / x, 0.0, math.inf)
LOGIT = Scale(lambda x: math.log(x / (1 - x)), lambda z: 1 / (1 + math.exp(-z)), lambda x: 1 / (x * (1 - x)), 0.0, 1.0)
FISHER = Scale(math.atanh, math.tanh, lambda x: 1 / (1 - x * x), -1.0, 1.0)


def few(clusters: int) -> str | None:
    """Why so few clusters give no interval; None where there are enough."""
    if clusters >= LEAST_CLUSTERS:
        return None
    return f"{_queries(clusters)}, and an interval takes {LEAST_CLUSTERS}"


def _queries(count: int) -> str:
    return f"{count} {'query' if count == 1 else 'queries'}"


def rare(labels: Sequence[int], clusters: Sequence[Hashable]) -> str | None:
    """Why a mean over labels has no interval: people use one of them in few queries; None where all are common."""
    seen: dict[int, set[Hashable]] = {}
    for label, cluster in zip(labels, clusters, strict=True):
        seen.setdefault(label, set()).add(cluster)
    label, where = min(seen.items(), key=lambda item: len(item[1]))
    if len(where) >= LEAST_WITH:
        return None
    return f"people say {'tie' if label == 0 else label} in {_queries(len(where))} only"


def quantile(clusters: int, *, level: float = LEVEL) -> float:
    """Student's t with clusters - 1 degrees of freedom."""
    from scipy.stats import t

    return float(t.ppf((1 + level) / 2, clusters - 1))


def _normal(level: float) -> float:
    from scipy.stats import norm

    return float(norm.ppf((1 + level) / 2))


def all_alike(sizes: Array) -> float:
    """The design effect of clusters whose samples are all alike: sum m^2 / sum m."""
    return float((sizes**2).sum() / sizes.sum())


def wilson(share: float, n: float, z: float) -> tuple[float, float]:
    """Wilson's score interval (1927) of a share of n unrelated samples."""
    middle, spread = share + z * z / (2 * n), z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    whole = 1 + z * z / n
    return max(0.0, (middle - spread) / whole), min(1.0, (middle + spread) / whole)


def share(rows: Array, clusters: Sequence[Hashable], *, level: float = LEVEL) -> Interval:
    """Of sum x / sum n.

    Args:
        rows: x and n of each sample, (samples, 2), 0 <= x <= n; samples with n = 0 do not count.
        clusters: of each sample.
    """
    counted = rows[:, 1] > 0
    rows, clusters = rows[counted], [name for name, keep in zip(clusters, counted, strict=True) if keep]
    if why := few(len(set(clusters))):
        return Interval(why=why, clusters=len(set(clusters)))
    sums = cluster_sums(rows, clusters)
    x, n = map(float, rows.sum(0))
    p, count, z = x / n, len(sums), quantile(len(sums), level=level)
    if count == len(rows) and set(np.unique(rows)) <= {0.0, 1.0}:
        size, z = n, _normal(level)
    elif min((sums[:, 0] > 0).sum(), (sums[:, 0] < sums[:, 1]).sum()) < LEAST_WITH:
        size = n / all_alike(sums[:, 1])
    else:
        # Of a ratio of sums over clusters, by linearisation.
        variance = count / (count - 1) * float(((sums[:, 0] - p * sums[:, 1]) ** 2).sum()) / n**2
        size = n / max(LEAST_EFFECT, n * variance / (p * (1 - p)))
    low, high = wilson(p, size, z)
    # A share of 0 or 1 is in its interval; in floating point only nearly so.
    return Interval(0.0 if x == 0 else float(low), 1.0 if x == n else float(high), clusters=count)


def design_effect(gained: Array, lost: Array, clusters: Sequence[Hashable]) -> float:
    """Of the mean of gained - lost, both 0 or 1 for each sample."""
    sums = cluster_sums(np.stack([gained, lost, np.ones_like(gained)], axis=1), clusters)
    count, n = len(sums), len(gained)
    if count == n:
        return 1.0
    if (sums[:, 0] + sums[:, 1] > 0).sum() < LEAST_WITH:
        return all_alike(sums[:, 2])
    mean = float((gained - lost).mean())
    off = sums[:, 0] - sums[:, 1] - mean * sums[:, 2]
    effect = count / (count - 1) * float((off**2).sum()) / (n * float((gained - lost).var()))
    return max(LEAST_EFFECT, effect)


def difference_of_shares(
    first: Array, second: Array, clusters: Sequence[Hashable], *, level: float = LEVEL
) -> Interval:
    """Of second - first, two shares of the same samples, by Agresti & Min (2005): with half a sample more of each kind.

    Args:
        first: whether it holds of each sample, (samples,); `second`: the same of the other.
    """
    gained, lost = second * (1 - first), first * (1 - second)
    n, count = len(gained), len(set(clusters))
    if why := few(count):
        return Interval(why=why, clusters=count)
    size = n / design_effect(gained, lost, clusters)
    up, down = ((size * float(part.mean()) + 0.5) / (size + 2) for part in (gained, lost))
    z = _normal(level) if count == n else quantile(count, level=level)
    half = z * math.sqrt((up + down - (up - down) ** 2) / (size + 2))
    return Interval(max(-1.0, up - down - half), min(1.0, up - down + half), clusters=count)


@dataclass(frozen=True)
class Drawn:
    """What sums over samples could have come to."""

    total: Array
    """As they are, (columns,)."""
    by_cluster: Array
    """With clusters drawn anew, (draws, columns)."""
    clusters: int
    by_sample: Array | None = None
    """With samples drawn anew one by one, (draws, columns), where the design effect cannot be told."""
    alike: float = 1.0
    """`all_alike`, which then stands for it."""


def draw(
    rows: Array, clusters: Sequence[Hashable], *, telling: int | None = None, draws: int = DRAWS, seed: int = 0
) -> Drawn:
    """One set of draws for all figures of the same sums.

    Args:
        rows: what each sample adds, (samples, columns).
        telling: clusters that hold the rarer outcome (errors, samples that two judges see differently), if there is
            one. With fewer than `LEAST_WITH`, the samples of a cluster are taken for all alike.
    """
    sums = cluster_sums(rows, clusters)
    found = Drawn(rows.sum(0), resampled(sums, draws=draws, seed=seed), len(sums))
    if telling is None or telling >= LEAST_WITH:
        return found
    kinds, counts = np.unique(rows, axis=0, return_counts=True)
    single = np.random.default_rng(seed).multinomial(len(rows), counts / len(rows), draws).astype(np.float64) @ kinds
    sizes = cluster_sums(np.ones((len(rows), 1)), clusters)
    return replace(found, by_sample=single, alike=all_alike(sizes[:, 0]))


def smooth(drawn: Drawn, statistic: Statistic, scale: Scale = PLAIN) -> Interval:
    """Of a smooth figure of sums."""
    floor = 0.0
    if drawn.by_sample is not None:
        floor = math.sqrt(drawn.alike) * float(np.nanstd(statistic(drawn.by_sample)))
    return from_draws(float(statistic(drawn.total)), statistic(drawn.by_cluster), drawn.clusters, scale, floor=floor)


def from_draws(
    value: float, drawn: Array, clusters: int, scale: Scale = PLAIN, *, floor: float = 0.0, level: float = LEVEL
) -> Interval:
    """there(value) +- t s, s being the draws' standard deviation, and at least `floor`."""
    if why := few(clusters):
        return Interval(why=why, clusters=clusters)
    if not scale.low < value < scale.high:
        return Interval(why=f"it is {value:g}, the end of its range", clusters=clusters)
    defined = drawn[~np.isnan(drawn)]
    if len(defined) < (1 - _MOST_UNDEFINED) * len(drawn):
        undefined = 100 * (1 - len(defined) / len(drawn))
        return Interval(why=f"it is not defined in {undefined:.0f} % of the draws", clusters=clusters)
    error = max(floor, math.sqrt(clusters / (clusters - 1)) * float(defined.std()))
    if error == 0:
        return Interval(why="it is the same in every draw", clusters=clusters)
    half = quantile(clusters, level=level) * error * scale.slope(value)
    low, high = (scale.back(scale.there(value) + side * half) for side in (-1, 1))
    return Interval(low, high, clusters=clusters)
