"""McNemar's test (1947) of two judges on the same samples, with the samples of a query kept together.

D_c is by how many samples of query c the second judge leads, of those that one of the two alone has right. If the
judges are equally good, swapping them in a query changes nothing, so that D_c and -D_c are equally likely.

- (sum D)^2 / sum D^2 is then about chi-squared with one degree of freedom, as in the cluster-robust forms of McNemar's
  test (Obuchowski 1998; Durkalski et al. 2003). Where each query has one sample it is McNemar's (b - c)^2 / (b + c). It
  takes some ten queries: of four where one judge leads by as much, 1 in 8 would be a false alarm.
- Exactly, of the 2^k ways to swap the judges in the k queries where D is not 0, each is as likely as another. The share
  in which they are at least as far apart is summed, not drawn. Where each query has one sample it is McNemar's exact
  test. With few such queries it is too cautious.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

from evaluators.statistics.bootstrap import Array


class PValues(NamedTuple):
    """Two-sided."""

    robust: float
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
    """Of the sum of leads, none of them 0, where the sign of each is a fair coin; 1 where the sum is 0."""
    lead = abs(sum(leads))
    if lead == 0:
        return PValues(1.0, 1.0)
    chances = _flipped(Counter(map(abs, leads)))
    at_least = chances[len(chances) // 2 + lead :]
    return PValues(math.erfc(lead / math.sqrt(2 * sum(d * d for d in leads))), min(1.0, 2 * float(at_least.sum())))


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
