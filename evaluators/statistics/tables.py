"""Accuracy, macro-F1 and kappa of many confusion tables at once; `evaluators.metrics` has them for one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evaluators.statistics.bootstrap import Array, Statistic

HUMAN = (0, 1, 2)
JUDGE: tuple[int | None, ...] = (0, 1, 2, None)


def cells(human: Sequence[int], judge: Sequence[int | None]) -> Array:
    """Each sample's cell of the table, (samples, 3 x 4)."""
    rows = np.zeros((len(human), len(HUMAN) * len(JUDGE)))
    for at, (person, verdict) in enumerate(zip(human, judge, strict=True)):
        rows[at, HUMAN.index(person) * len(JUDGE) + JUDGE.index(verdict)] = 1
    return rows


def _tables(sums: Array, wrong: bool) -> Array:
    """(..., 12) -> (..., human, judge); without the unscored column unless they count as wrong."""
    table = sums.reshape(*sums.shape[:-1], len(HUMAN), len(JUDGE))
    return table if wrong else table[..., :3]


def accuracy(wrong: bool) -> Statistic:
    """trace / total."""

    def of(sums: Array) -> Array:
        table = _tables(sums, wrong)
        return _ratio(np.trace(table[..., :3], axis1=-2, axis2=-1), table.sum((-2, -1)))

    return of


def macro_f1(wrong: bool, labels: Sequence[int] | None = None) -> Statistic:
    """Mean of 2 TP / (human + judge) over the labels that occur in the table."""
    wanted = list(HUMAN if labels is None else labels)

    def of(sums: Array) -> Array:
        table = _tables(sums, wrong)
        right = np.diagonal(table[..., :3], axis1=-2, axis2=-1)[..., wanted]
        both = (table.sum(-1) + table.sum(-2)[..., :3])[..., wanted]
        f1 = _ratio(2 * right, both)
        return _ratio(np.nansum(f1, -1), (both > 0).sum(-1).astype(np.float64))

    return of


def kappa(wrong: bool) -> Statistic:
    """(p_o - p_e) / (1 - p_e)."""

    def of(sums: Array) -> Array:
        table = _tables(sums, wrong)
        total = table.sum((-2, -1))
        observed = np.trace(table[..., :3], axis1=-2, axis2=-1) * total
        expected = (table.sum(-1) * table.sum(-2)[..., :3]).sum(-1)
        return _ratio(observed - expected, total**2 - expected)

    return of


def rate(sums: Array) -> Array:
    """Column 0 over column 1."""
    return _ratio(sums[..., 0], sums[..., 1])


def _ratio(over: Array, under: Array) -> Array:
    return np.divide(over, under, out=np.full(np.shape(over), np.nan), where=np.asarray(under) > 0)
