"""How far a judge agrees with people: plain functions over sequences of labels, for use in other programs.

A label is 1 or 2 (that response is better) or 0 (tie); a verdict may also be None: unscored. `unscored="exclude"` takes
the scored samples alone; `"wrong"` takes all, and an unscored verdict is right for no label (for kappa it is a class of
its own). A figure that is not defined for the input is None, never NaN and never 0. Definitions, with their limits:
docs/trusting_the_judge.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from evaluators.statistics.baselines import baselines, ceilings
from evaluators.statistics.tables import of_counts

__all__ = [
    "accuracy",
    "baselines",
    "ceilings",
    "cohen_kappa",
    "first_position_rate",
    "longer_rate",
    "macro_f1",
    "order_agreement",
]

Unscored = Literal["exclude", "wrong"]


def accuracy(human: Sequence[int], judge: Sequence[int | None], *, unscored: Unscored = "exclude") -> float | None:
    """Share of samples where the judge says what people say; None where no sample counts."""
    return of_counts(_counted(human, judge, unscored)).accuracy


def macro_f1(
    human: Sequence[int],
    judge: Sequence[int | None],
    *,
    labels: Sequence[int] | None = None,
    unscored: Unscored = "exclude",
) -> float | None:
    """Mean over `labels` of F1 = 2 TP / (2 TP + FP + FN).

    Args:
        labels: those of the mean; if not given, those that people use, whatever the judge says: one verdict that no
            person ever gives is an error, and not one more label to be averaged over. A label that is given and that
            neither uses has no F1 (0/0) and is left out of the mean.
    """
    return of_counts(_counted(human, judge, unscored), labels).macro_f1


def cohen_kappa(human: Sequence[int], judge: Sequence[int | None], *, unscored: Unscored = "exclude") -> float | None:
    """(p_o - p_e) / (1 - p_e), Cohen 1960; None where chance explains everything (p_e = 1: one label on both sides)."""
    return of_counts(_counted(human, judge, unscored)).kappa


def order_agreement(
    order12: Sequence[int | None], order21: Sequence[int | None], *, unscored: Unscored = "exclude"
) -> float | None:
    """Position consistency: share of samples with the same verdict in both answer orders.

    Verdicts are of the sample's own responses, whichever was shown first. An unscored verdict agrees with none: samples
    that have one are left out, or with "wrong" count as not the same.
    """
    _same_length(order12, order21)
    _known(unscored)
    same = sum(a == b and a is not None for a, b in zip(order12, order21, strict=True))
    scored = sum(a is not None and b is not None for a, b in zip(order12, order21, strict=True))
    n = scored if unscored == "exclude" else len(order12)
    return same / n if n else None


def first_position_rate(order12: Sequence[int | None], order21: Sequence[int | None]) -> float | None:
    """Share of the verdicts with a winner, of both orders, that prefer the response shown first; 0.5: no preference."""
    _same_length(order12, order21)
    first = sum(verdict == 1 for verdict in order12) + sum(verdict == 2 for verdict in order21)
    decided = sum(verdict in (1, 2) for verdict in (*order12, *order21))
    return first / decided if decided else None


def longer_rate(judge: Sequence[int | None], length1: Sequence[int], length2: Sequence[int]) -> float | None:
    """Share of the verdicts with a winner, over pairs of unequal length, that prefer the longer response."""
    _same_length(judge, length1)
    _same_length(judge, length2)
    rows = [(v, a > b) for v, a, b in zip(judge, length1, length2, strict=True) if v in (1, 2) and a != b]
    return sum((verdict == 1) == first_is_longer for verdict, first_is_longer in rows) / len(rows) if rows else None


def _counted(human: Sequence[int], judge: Sequence[int | None], unscored: Unscored) -> Counter[tuple[int, int | None]]:
    _same_length(human, judge)
    for label in human:
        if label not in (0, 1, 2):
            raise ValueError(f"human label {label!r}: must be 1, 2 or 0 (tie); drop samples without one")
    _known(unscored)
    for verdict in judge:
        if verdict not in (0, 1, 2, None):
            raise ValueError(f"verdict {verdict!r}: must be 1, 2, 0 (tie) or None (unscored)")
    rows = zip(human, judge, strict=True)
    return Counter((int(a), None if b is None else int(b)) for a, b in rows if b is not None or unscored == "wrong")


def _known(unscored: str) -> None:
    if unscored not in ("exclude", "wrong"):
        raise ValueError(f"unscored {unscored!r}: must be exclude or wrong")


def _same_length(one: Sequence[object], other: Sequence[object]) -> None:
    if len(one) != len(other):
        raise ValueError(f"sequences of {len(one)} and {len(other)} labels; they must be of the same samples")
