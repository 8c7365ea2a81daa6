"""What statistics say must come out of simulated judges, by scipy and linear algebra, without the project's code."""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]


def condorcet(p: float, n: int) -> float:
    """Majority of an odd number of independent votes."""
    return float(stats.binom.sf(n // 2, n, p))


def beta(mean: float, rho: float) -> tuple[float, float]:
    size = (1 - rho) / rho
    return mean * size, (1 - mean) * size


def beta_binomial(mean: float, rho: float, n: int) -> float:
    """Majority of an odd number of votes of correlation rho."""
    return float(stats.betabinom.sf(n // 2, n, *beta(mean, rho)))


def beta_ceiling(mean: float, rho: float) -> float:
    """Majority of infinitely many: the share of samples on which a review is more often right than wrong."""
    return float(stats.beta.sf(0.5, *beta(mean, rho)))


def same_sign(mean: tuple[float, float], covariance: tuple[tuple[float, float], tuple[float, float]]) -> float:
    """P(x y > 0) of two normal variables: both below 0, or both above."""
    below = stats.multivariate_normal(mean, covariance).cdf([0, 0])
    above = stats.multivariate_normal([-m for m in mean], covariance).cdf([0, 0])
    return float(below + above)


def right(gap: float, error: float, bias: float = 0.0) -> float:
    """Accuracy where a normal gap of deviation `gap` is seen with an error of variance `error` and a constant bias."""
    return same_sign((0, bias), ((gap**2, gap**2), (gap**2, gap**2 + error)))


class Mixing:
    """Layers of n neurons, each d_k = (1 - lam) d_{k-1} + lam * mean of the others in its window + e_k + h_k.

    d_1 = t + r + e_1, all independent normals: t of the sample, r of the neuron, e_k of the review (averaged over both
    orders), h_k shared by the layer. The gap is left out: it passes through unchanged.
    """

    def __init__(
        self, n: int, depth: int, *, window: int | None = None, lam: float = 0.5, herd: float = 0.0, sample: float = 0.7
    ) -> None:
        near = np.array([[i != j and (window is None or abs(i - j) < window) for j in range(n)] for i in range(n)])
        pull = (1 - lam) * np.eye(n) + lam * near / near.sum(1, keepdims=True)
        # Columns: t | r | e_1 ... e_L | h_1 ... h_L
        variances = np.concatenate([[sample**2], np.ones(n), np.full(n * depth, 0.5), np.full(depth, herd**2)])
        first = np.zeros((n, len(variances)))
        first[:, 0] = 1
        first[:, 1 : 1 + n] = first[:, 1 + n : 1 + 2 * n] = np.eye(n)
        self.layers = [first]
        for k in range(1, depth):
            new = np.zeros_like(first)
            new[:, 1 + n * (k + 1) : 1 + n * (k + 2)] = np.eye(n)
            new[:, 1 + n * (depth + 1) + k] = 1
            self.layers.append(pull @ self.layers[-1] + new)
        self._scale = np.sqrt(variances)

    def covariance(self, layer: int) -> Array:
        loadings = self.layers[layer] * self._scale
        return loadings @ loadings.T

    def spread(self, layer: int = -1) -> float:
        """Variance among the neurons of a sample, over n."""
        of = self.covariance(layer)
        return float(np.trace(of) / len(of) - of.mean())

    def correlation(self, layer: int) -> float:
        """Of the errors of the first neuron and the last."""
        of = self.covariance(layer)
        return float(of[0, -1] / math.sqrt(of[0, 0] * of[-1, -1]))

    def accuracy(self, *, last: bool = False) -> float:
        """Of the mean of all layers, or of the last: 1/2 + arcsin(corr(gap, mean)) / pi for a gap of deviation 1."""
        mean = np.mean(self.layers[-1:] if last else self.layers, axis=(0, 1)) * self._scale
        return 0.5 + math.asin(1 / math.sqrt(1 + mean @ mean)) / math.pi


class Persuasion:
    """n votes, right with probability p, then a second layer: who is wrong and sees a right vote turns with probability
    a; who is right and sees a wrong one turns with probability c. Summed over all 2^n first layers."""

    def __init__(self, p: float, a: float, c: float, n: int, window: int | None) -> None:
        sees = np.array([[window is None or abs(i - j) < window for j in range(n)] for i in range(n)])
        self.neuron = self.layer1 = self.layer2 = self.both = 0.0
        for state in itertools.product((0, 1), repeat=n):
            votes = np.array(state)
            weight = p ** votes.sum() * (1 - p) ** (n - votes.sum())
            sees_right, sees_wrong = sees @ votes > 0, sees @ (1 - votes) > 0
            after = np.where(votes, 1 - c * sees_wrong, a * sees_right)
            count = np.ones(1)  # of right votes in layer 2: Poisson binomial
            for chance in after:
                count = np.convolve(count, [1 - chance, chance])
            self.neuron += weight * after.mean()
            self.layer1 += weight * _half(votes.sum(), n)
            self.layer2 += weight * sum(part * _half(k, n) for k, part in enumerate(count))
            self.both += weight * sum(part * _half(votes.sum() + k, 2 * n) for k, part in enumerate(count))


def _half(right: int, votes: int) -> float:
    """1 where most votes are right, a half in a tie."""
    return float(np.sign(2 * right - votes) + 1) / 2


def tie_rate(mean: float, deviation: float, reviews: int) -> float:
    """P(sum = 0) of so many independent differences, each a normal rounded to a whole number: by convolution."""
    steps = np.arange(-15, 16)
    one = stats.norm.cdf(steps + 0.5, mean, deviation) - stats.norm.cdf(steps - 0.5, mean, deviation)
    total = np.ones(1)
    for _ in range(reviews):
        total = np.convolve(total, one)
    return float(total[len(total) // 2])
