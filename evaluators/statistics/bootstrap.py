"""Percentile bootstrap over clusters: samples of one query are drawn together, because their errors are related."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Statistic = Callable[[Array], Array]
"""Sums over samples, (..., columns) -> a figure, (...); NaN where it is not defined."""

DRAWS = 10_000
LEVEL = 0.95
_AT_ONCE = 2**22
_MOST_UNDEFINED = 0.05


@dataclass(frozen=True)
class Interval:
    """A percentile interval. `undefined` is the share of the draws in which the figure is not defined."""

    low: float
    high: float
    level: float = LEVEL
    undefined: float = 0.0


def cluster_sums(rows: Array, clusters: Sequence[Hashable]) -> Array:
    """Rows of one cluster added up: (samples, columns) -> (clusters, columns)."""
    numbers: dict[Hashable, int] = {}
    index = [numbers.setdefault(cluster, len(numbers)) for cluster in clusters]
    sums = np.zeros((len(numbers), rows.shape[1]))
    np.add.at(sums, index, rows)
    return sums


def resampled(sums: Array, *, draws: int = DRAWS, seed: int = 0) -> Array:
    """As many clusters as there are, drawn with replacement, added up: (clusters, columns) -> (draws, columns)."""
    return np.concatenate(list(_chunks(sums, draws, np.random.default_rng(seed))))


def _chunks(sums: Array, draws: int, random: np.random.Generator) -> Iterator[Array]:
    count = len(sums)
    step = max(1, _AT_ONCE // count)
    for start in range(0, draws, step):
        size = min(step, draws - start)
        drawn = random.integers(0, count, (size, count), dtype=np.int64)
        drawn += np.arange(size)[:, None] * count
        times = np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count)
        yield times.astype(np.float64) @ sums


def interval(values: Array, *, level: float = LEVEL) -> Interval | None:
    """The middle `level` of the draws; None where the figure is not defined in more than 5 % of them."""
    defined = values[~np.isnan(values)]
    undefined = 1 - len(defined) / len(values)
    if undefined > _MOST_UNDEFINED:
        return None
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), level, undefined)


def drawn(rows: Array, clusters: Sequence[Hashable], *, draws: int = DRAWS, seed: int = 0) -> Array | None:
    """Sums over whole clusters, drawn, (draws, columns); None where there are fewer than two."""
    if len(set(clusters)) < 2:
        return None
    return resampled(cluster_sums(rows, clusters), draws=draws, seed=seed)


def bootstrap(
    rows: Array, clusters: Sequence[Hashable], statistic: Statistic, *, draws: int = DRAWS, seed: int = 0
) -> Interval | None:
    """Interval of a figure of sums over samples (Efron 1979); None where there are fewer than two clusters.

    Args:
        rows: what each sample adds to the sums, (samples, columns).
        clusters: of each sample.
    """
    sums = drawn(rows, clusters, draws=draws, seed=seed)
    return None if sums is None else interval(statistic(sums))
