"""How many samples tell two judges apart, from their accuracies and the correlation of their errors."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluators.errors import ConfigError
from evaluators.judges.simulated import Population

_MOST = 10_000_000
_VARIED = 100
"""Variance of the number of samples apart, above which power is as smooth as its sum."""


@dataclass(frozen=True)
class Discordant:
    """Shares of the samples that one judge alone has right."""

    only_first: float
    only_second: float


def discordant(first: float, second: float, correlation: float) -> Discordant:
    """From two accuracies and the phi correlation r of errors: P(both right) = p1 p2 + r sqrt(p1 q1 p2 q2).

    Raises:
        ConfigError: no two judges of these accuracies have that correlation; names the range that there is.
    """
    spread = math.sqrt(first * (1 - first) * second * (1 - second))
    both = first * second + correlation * spread
    low, high = max(0.0, first + second - 1), min(first, second)
    if not low - 1e-9 <= both <= high + 1e-9:
        ends = [(end - first * second) / spread for end in (low, high)]
        raise ConfigError(
            f"--correlation {correlation:g}: judges of accuracy {first:g} and {second:g} can have errors correlated "
            f"from {ends[0]:.3f} to {ends[1]:.3f}"
        )
    # Of nested errors the difference is 0, but for the last bit.
    only = (max(0.0, right - both) for right in (first, second))
    return Discordant(*(share if share > 1e-9 else 0.0 for share in only))


@dataclass(frozen=True)
class Rejections:
    """Chances of a significant difference, p <= level."""

    right: float
    """In favour of the better judge: the power."""
    wrong: float
    """In favour of the worse one."""


def rejections(shares: Discordant, samples: int, *, level: float = 0.05) -> Rejections:
    """Of McNemar's test on so many samples, each of a query of its own; summed over all outcomes.

    The number d of samples that one judge alone has right is binomial, and of these the better one's are binomial. With
    equal judges both parts are false alarms.
    """
    from scipy.stats import binom, norm

    apart = shares.only_first + shares.only_second
    if apart <= 0:
        return Rejections(0.0, 0.0)
    low, high = (int(end) for end in binom.ppf([1e-12, 1 - 1e-12], samples, min(apart, 1.0)))
    counts = np.arange(max(low, 1), high + 1)
    # Of d samples apart, k : d - k is significant where (d - 2 k)^2 / d is beyond chi-squared's quantile z^2.
    k = np.floor((counts - norm.isf(level / 2) * np.sqrt(counts)) / 2 + 1e-9)
    better = max(shares.only_first, shares.only_second) / apart
    chances = binom.pmf(counts, samples, min(apart, 1.0))
    right, wrong = (np.where(k >= 0, binom.cdf(k, counts, share), 0.0) for share in (1 - better, better))
    return Rejections(float(chances @ right), float(chances @ wrong))


def samples_needed(shares: Discordant, *, wanted: float = 0.8, level: float = 0.05) -> int:
    """The smallest number of samples from which on the power is never below what is wanted.

    Power is not monotone: where it steps over a smallest significant difference it falls a little. One number with
    enough power is found by bisection, and those above it are looked at: with d of n samples apart, the steps are some
    2 samples wide and at most 1 / sqrt(d) high, while power grows by some 1 / 2n a sample, so that none is below it
    more than some sqrt(n) samples further. They cancel where d varies, as it does unless nearly all are apart, or few.

    Raises:
        ConfigError: the judges do not differ, or so little that ten million samples do not tell them apart.
    """
    if math.isclose(shares.only_first, shares.only_second, abs_tol=1e-12):
        raise ConfigError("--accuracies: the two judges are equally good; no number of samples tells them apart")

    def enough(samples: int) -> bool:
        return rejections(shares, samples, level=level).right >= wanted

    high = 1
    while not enough(high):
        high *= 2
        if high > _MOST:
            raise ConfigError("--accuracies: more than ten million samples would be needed to tell these judges apart")
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    apart = shares.only_first + shares.only_second
    if high * apart * (1 - apart) > _VARIED:
        return high
    around = range(high, high + 50 + 8 * math.isqrt(high))
    return max((samples + 1 for samples in around if not enough(samples)), default=high)


def expected_accuracy(population: Population, width: int) -> float:
    """Of a simulated population's mean score in both orders at depth 1: 1/2 + arctan(gap / s) / pi.

    s^2 = sample^2 + role^2 / n + review^2 / 2n is the variance of the mean's error. The position bias cancels. With a
    `fixed` gap it is Phi(gap / s), with `skill` the mean of Phi(q / s) over 20,000 quantiles of q.
    """
    s = math.sqrt(_shared(population, width, width))
    if population.skill:
        from scipy.special import ndtr

        return float(ndtr(_skilled(population, (np.arange(20_000) + 0.5) / 20_000) / s).mean())
    if population.fixed:
        return 1.0 if s == 0 else 0.5 * math.erfc(-population.gap / s / math.sqrt(2))
    return 0.5 + math.atan2(population.gap, s) / math.pi


def _skilled(population: Population, quantiles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gaps q of samples that are as hard as `skill` and `rho` say."""
    from scipy.special import ndtri

    return np.asarray(population.spread * ndtri(population.chance_at(quantiles)))


def _shared(population: Population, width: int, wider: int) -> float:
    """Covariance of the errors of the mean at two widths of the same neurons: that of the wider one's variance."""
    return population.sample**2 + (population.role**2 + population.review**2 / 2) / max(width, wider)


def error_correlation(population: Population, widths: tuple[int, int], *, draws: int = 400_000, seed: int = 0) -> float:
    """Phi correlation of the errors at two widths of one population, by simulation of the two means."""
    random = np.random.default_rng(seed)
    narrow, wide = min(widths), max(widths)
    variance_wide = _shared(population, wide, wide)
    more = _shared(population, narrow, narrow) - variance_wide
    if population.skill:
        gap = _skilled(population, random.random(draws))
    elif population.fixed:
        gap = np.full(draws, population.gap)
    else:
        gap = population.gap * np.abs(random.standard_normal(draws))
    error = math.sqrt(variance_wide) * random.standard_normal(draws)
    wrong_wide = gap + error < 0
    wrong_narrow = gap + error + math.sqrt(max(more, 0.0)) * random.standard_normal(draws) < 0
    if wrong_wide.std() == 0 or wrong_narrow.std() == 0:
        raise ConfigError("--population: one of its judges is always right, or always wrong, at these widths")
    return float(np.corrcoef(wrong_wide, wrong_narrow)[0, 1])
