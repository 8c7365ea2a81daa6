"""Accuracy, macro-F1 and kappa of confusion tables, one or many at once; `evaluators.metrics` takes sequences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from evaluators.statistics.bootstrap import Array, Statistic

HUMAN = (0, 1, 2)
JUDGE: tuple[int | None, ...] = (0, 1, 2, None)


class Figures(NamedTuple):
    """Agreement of verdicts with people; None where a figure is not defined."""

    accuracy: float | None
    macro_f1: float | None
    kappa: float | None


def cells(human: Sequence[int], judge: Sequence[int | None]) -> Array:
    """Each sample's cell of the table, (samples, 3 x 4)."""
    rows = np.zeros((len(human), len(HUMAN) * len(JUDGE)))
    for at, (person, verdict) in enumerate(zip(human, judge, strict=True)):
        rows[at, _cell(person, verdict)] = 1
    return rows


def _cell(person: int, verdict: int | None) -> int:
    return HUMAN.index(person) * len(JUDGE) + JUDGE.index(verdict)


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


def macro_f1(wrong: bool, labels: Sequence[int]) -> Statistic:
    """Mean of 2 TP / (human + judge) over the same labels in every table; one that a table lacks is left out."""
    wanted = [label for label in HUMAN if label in labels]

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


def labels_of(human: Sequence[int]) -> list[int]:
    """Those that people use: macro-F1 is the mean over them, in every draw and for every judge of the same samples."""
    return sorted(set(human))


def of_counts(counts: Mapping[tuple[int, int | None], float], labels: Sequence[int] | None = None) -> Figures:
    """The three figures of one table (human label, verdict) -> how many samples; a verdict of None is always wrong.

    Args:
        labels: of macro-F1; those that people use if not given.
    """
    if labels is None:
        labels = sorted({person for (person, _), count in counts.items() if count})
    sums = np.zeros(len(HUMAN) * len(JUDGE))
    for (person, verdict), count in counts.items():
        sums[_cell(person, verdict)] += count
    return Figures(*(figure(of(sums)) for of in (accuracy(True), macro_f1(True, labels), kappa(True))))


def figure(value: Array) -> float | None:
    """A single figure; None where it is not defined."""
    return None if np.isnan(value) else float(value)


def _ratio(over: Array, under: Array) -> Array:
    return np.divide(over, under, out=np.full(np.shape(over), np.nan), where=np.asarray(under) > 0)
