"""McNemar's test (1947) of two judges on the same samples, with the samples of a query kept together.

If the judges are equally good, swapping them in any query changes nothing. Of the 2^k ways to swap them in the k
queries where they differ, each is as likely as another, and the exact p-value is the share in which they are at least
as far apart as they are. Where each query has one sample, that is McNemar's exact test, the binomial tail of the
samples that one judge alone has right. The mid-p value takes half of those that are exactly as far (Lancaster 1961):
the exact test is too cautious where few queries differ, and mid-p keeps near its level (Fagerland, Lydersen & Laake
2013). Both are summed, not drawn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

from evaluators.statistics.bootstrap import Array


class PValues(NamedTuple):
    """Two-sided."""

    mid: float
    exact: float


def mcnemar(only_first: Sequence[bool], only_second: Sequence[bool], clusters: Sequence[Hashable]) -> PValues:
    """Of two judges.

    Args:
        only_first: of each sample, whether the first judge alone is right; `only_second`: the second.
        clusters: of each sample.
    """
    leads: Counter[Hashable] = Counter()
    for first, second, cluster in zip(only_first, only_second, clusters, strict=True):
        leads[cluster] += int(second) - int(first)
    return sign_flips([lead for lead in leads.values() if lead])


def sign_flips(leads: Sequence[int]) -> PValues:
    """Of |sum of leads| where the sign of each is a fair coin; 1 where the sum is 0."""
    lead = abs(sum(leads))
    if lead == 0:
        return PValues(1.0, 1.0)
    chances = _flipped(Counter(map(abs, leads)))
    middle = len(chances) // 2
    farther, as_far = 2 * float(chances[middle + lead + 1 :].sum()), 2 * float(chances[middle + lead])
    return PValues(farther + as_far / 2, farther + as_far)


def _flipped(sizes: Counter[int]) -> Array:
    """Distribution of the sum of +-size, so many of each, from -sum to sum."""
    from scipy.stats import binom

    chances = np.ones(1)
    for size, count in sorted(sizes.items()):
        # Of `count` signs j are +: the sum is size (2 j - count).
        longer = np.zeros(len(chances) + 2 * size * count)
        for j, chance in enumerate(binom.pmf(np.arange(count + 1), count, 0.5)):
            longer[2 * size * j : 2 * size * j + len(chances)] += chance * chances
        chances = longer
    return chances
