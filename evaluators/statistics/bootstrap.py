"""Draws of a bootstrap over clusters: samples of one query are drawn together, because their errors are related."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Statistic = Callable[[Array], Array]
"""Sums over samples, (..., columns) -> a figure, (...); NaN where it is not defined."""

DRAWS = 10_000
LEVEL = 0.95
_AT_ONCE = 2**22


def numbered(clusters: Sequence[Hashable]) -> NDArray[np.int64]:
    """The clusters as 0, 1, ... in the order in which they come, (samples,)."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(cluster, len(numbers)) for cluster in clusters], dtype=np.int64)


def cluster_sums(rows: Array, clusters: Sequence[Hashable]) -> Array:
    """Rows of one cluster added up: (samples, columns) -> (clusters, columns)."""
    index = numbered(clusters)
    sums = np.zeros((index.max(initial=-1) + 1, rows.shape[1]))
    np.add.at(sums, index, rows)
    return sums


def times_drawn(count: int, *, draws: int, seed: int) -> Iterator[Array]:
    """How often each of `count` clusters is drawn when as many are drawn with replacement, (some draws, count)."""
    random = np.random.default_rng(seed)
    step = max(1, _AT_ONCE // count)
    for start in range(0, draws, step):
        size = min(step, draws - start)
        drawn = random.integers(0, count, (size, count), dtype=np.int64)
        drawn += np.arange(size)[:, None] * count
        yield np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count).astype(np.float64)


def resampled(sums: Array, *, draws: int = DRAWS, seed: int = 0) -> Array:
    """As many clusters as there are, drawn with replacement, added up: (clusters, columns) -> (draws, columns)."""
    return np.concatenate([times @ sums for times in times_drawn(len(sums), draws=draws, seed=seed)])
