"""Strengths of systems by maximum likelihood (Bradley & Terry 1952), many tables of the same pairs at once.

The log likelihood, sum over pairs of w_ij log P(i beats j) with P(i beats j) = 1 / (1 + exp(s_j - s_i)), is concave, so
Newton's method finds its maximum in a few steps. There is one if and only if from each system a chain of wins leads to
every other (Ford 1957).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluators.statistics.bootstrap import Array

_STEPS = 100
_LONGEST_STEP = 2.0
_CLOSE = 1e-9
_AT_ONCE = 2**21


@dataclass(frozen=True)
class Pairs:
    """Pairs of systems that met."""

    one: NDArray[np.int64]
    other: NDArray[np.int64]
    systems: int

    @cached_property
    def _incidence(self) -> Any:
        """1 for a pair's one, -1 for its other, (pairs, systems)."""
        from scipy.sparse import coo_array

        rows, count = np.arange(len(self.one)), len(self.one)
        signs = np.concatenate([np.ones(count), -np.ones(count)])
        at = (np.tile(rows, 2), np.concatenate([self.one, self.other]))
        return coo_array((signs, at), shape=(count, self.systems)).tocsr()

    def connected(self, wins: Array) -> bool:
        """Whether from each system a chain of wins leads to every other, of one table (2, pairs)."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        won = np.concatenate([wins[0], wins[1]]) > 0
        start, end = np.concatenate([self.one, self.other]), np.concatenate([self.other, self.one])
        shape = (self.systems, self.systems)
        arrows = coo_array((np.ones(won.sum()), (start[won], end[won])), shape=shape).tocsr()
        return bool(connected_components(arrows, directed=True, connection="strong")[0] == 1)

    def strengths(self, wins: Array, start: Array | None = None) -> Array:
        """Log strengths, mean 0.

        Args:
            wins: of each pair's one over its other, and of the other over the one, (tables, 2, pairs).
            start: of Newton's method, (systems,).

        Returns:
            (tables, systems); NaN where the likelihood has no maximum, or it was not found.
        """
        found = np.full((len(wins), self.systems), np.nan)
        finite = np.flatnonzero([self.connected(table) for table in wins])
        step = max(1, _AT_ONCE // (self.systems**2 + 2 * len(self.one)))
        for at in range(0, len(finite), step):
            some = finite[at : at + step]
            found[some] = self._newton(wins[some], np.zeros(self.systems) if start is None else start)
        return found

    def _newton(self, wins: Array, start: Array) -> Array:
        s = np.tile(start - start.mean(), (len(wins), 1))
        games = wins.sum(1)
        left = np.arange(len(wins))
        for _ in range(_STEPS):
            p = 1 / (1 + np.exp(s[left][:, self.other] - s[left][:, self.one]))
            slope = wins[left, 0] - games[left] * p
            change = np.linalg.solve(self._curvature(games[left] * p * (1 - p)), (slope @ self._incidence)[..., None])[
                ..., 0
            ]
            longest = np.abs(change).max(1, keepdims=True)
            s[left] += change * np.minimum(1, _LONGEST_STEP / np.maximum(longest, _LONGEST_STEP))
            left = left[longest[:, 0] > _CLOSE]
            if not len(left):
                break
        s[left] = np.nan
        return s - s.mean(1, keepdims=True)

    def _curvature(self, weight: Array) -> Array:
        """Minus the Hessian, (tables, systems, systems), and a little for the mean, which is free."""
        found = np.zeros((len(weight), self.systems, self.systems))
        found[:, self.one, self.other] = found[:, self.other, self.one] = -weight
        diagonal = np.arange(self.systems)
        found[:, diagonal, diagonal] = weight @ abs(self._incidence)
        return found + (weight.sum(1) / self.systems**2)[:, None, None]
