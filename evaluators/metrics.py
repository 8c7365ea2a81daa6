"""How far a judge agrees with people: plain functions over sequences of labels, for use in other programs.

A label is 1 or 2 (that response is better) or 0 (tie); a verdict may also be None: unscored. `unscored="exclude"` takes
the scored samples alone; `"wrong"` takes all, and an unscored verdict is right for no label (for kappa it is a class of
its own). A figure that is not defined for the input is None, never NaN and never 0. Definitions, with their limits:
docs/trusting_the_judge.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

Unscored = Literal["exclude", "wrong"]
_NO_VERDICT = -1


class Figures(NamedTuple):
    """Agreement of verdicts with people; None where a figure is not defined."""

    accuracy: float | None
    macro_f1: float | None
    kappa: float | None


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
        labels: those of the mean; if not given, those that people or the judge use. A label that neither uses has no
            F1 (0/0) and is left out of the mean.
    """
    return of_counts(_counted(human, judge, unscored), labels).macro_f1


def cohen_kappa(human: Sequence[int], judge: Sequence[int | None], *, unscored: Unscored = "exclude") -> float | None:
    """(p_o - p_e) / (1 - p_e), Cohen 1960; None where chance explains everything (p_e = 1: one label on both sides)."""
    return of_counts(_counted(human, judge, unscored)).kappa


def order_agreement(order12: Sequence[int | None], order21: Sequence[int | None]) -> float | None:
    """Position consistency: share of samples with the same verdict in both answer orders.

    Verdicts are of the sample's own responses, whichever was shown first. Two unscored verdicts agree (so LLMBar).
    """
    _same_length(order12, order21)
    return sum(a == b for a, b in zip(order12, order21, strict=True)) / len(order12) if order12 else None


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


def ceilings(human: Sequence[int]) -> dict[str, dict[str, float | None]]:
    """What judges without skill, or without the word tie, reach on these labels, in expectation.

    `never_tie` is right wherever people name a winner and says 1 where they say tie (for accuracy and kappa any choice
    would do; macro-F1, over the labels that people use, is that of ties split evenly); `always_1`; `coin` says 1 or 2
    at random.
    """
    n = len(human)
    if not n:
        return {}
    share = {label: sum(person == label for person in human) / n for label in (1, 2, 0)}
    half = share[0] / 2

    def table(shares: dict[tuple[int, int], float]) -> dict[str, float | None]:
        return of_counts(shares, [label for label in share if share[label]])._asdict()

    return {
        "never_tie": table({(1, 1): share[1], (2, 2): share[2], (0, 1): half, (0, 2): half}),
        "always_1": table({(label, 1): part for label, part in share.items()}),
        "coin": table({(label, side): part / 2 for label, part in share.items() for side in (1, 2)}),
    }


def of_counts(counts: Mapping[tuple[int, int], float], labels: Sequence[int] | None = None) -> Figures:
    """The three figures from a table (human label, verdict) -> how many samples, or which share of them.

    Args:
        labels: as in `macro_f1`.
    """
    cells = [(person, verdict, part) for (person, verdict), part in counts.items() if part]
    people, verdicts, weights = ([cell[at] for cell in cells] for at in range(3))
    used = {*people, *verdicts} - {_NO_VERDICT}
    wanted = sorted(used if labels is None else used.intersection(labels))
    if not cells:
        return Figures(None, None, None)
    # Late: it takes a second, which --help should not.
    from sklearn.metrics import accuracy_score, cohen_kappa_score, f1_score

    return Figures(
        float(accuracy_score(people, verdicts, sample_weight=weights)),
        float(f1_score(people, verdicts, labels=wanted, average="macro", sample_weight=weights, zero_division=0.0))
        if wanted
        else None,
        # p_e = 1: sklearn would divide by 0.
        float(cohen_kappa_score(people, verdicts, sample_weight=weights)) if len({*people, *verdicts}) > 1 else None,
    )


def _counted(human: Sequence[int], judge: Sequence[int | None], unscored: Unscored) -> Counter[tuple[int, int]]:
    _same_length(human, judge)
    for label in human:
        if label not in (0, 1, 2):
            raise ValueError(f"human label {label!r}: must be 1, 2 or 0 (tie); drop samples without one")
    if unscored not in ("exclude", "wrong"):
        raise ValueError(f"unscored {unscored!r}: must be exclude or wrong")
    for verdict in judge:
        if verdict not in (0, 1, 2, None):
            raise ValueError(f"verdict {verdict!r}: must be 1, 2, 0 (tie) or None (unscored)")
    rows = zip(human, judge, strict=True)
    return Counter(
        (int(a), _NO_VERDICT if b is None else int(b)) for a, b in rows if b is not None or unscored == "wrong"
    )


def _same_length(one: Sequence[object], other: Sequence[object]) -> None:
    if len(one) != len(other):
        raise ValueError(f"sequences of {len(one)} and {len(other)} labels; they must be of the same samples")
