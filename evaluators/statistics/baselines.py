"""What needs no model to reach, and what no judge without the word tie can exceed: lines to beat.

Macro-F1 is the mean over the labels that people use here, so that all lines are means over the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from evaluators.statistics.tables import Figures, of_counts

Lines = dict[str, dict[str, float | None]]
"""Name -> accuracy, macro_f1 and kappa; None where a figure is not defined."""


def baselines(human: Sequence[int], lengths: Sequence[tuple[int, int]]) -> Lines:
    """Always 1, always 2, the longer response, the shorter, and a fair coin between 1 and 2 in expectation.

    Args:
        human: labels 1, 2 or 0 (tie).
        lengths: of both responses, in characters; equal ones are a tie.

    Returns:
        Nothing where there is no label.
    """
    if not human:
        return {}
    longer: list[int | None] = [0 if one == two else 1 if one > two else 2 for one, two in lengths]
    verdicts: dict[str, list[int | None]] = {
        "always_1": [1] * len(human),
        "always_2": [2] * len(human),
        "longer": longer,
        "shorter": [0 if one == two else 1 if one < two else 2 for one, two in lengths],
    }
    lines = {name: _figures(Counter(zip(human, said, strict=True)), human) for name, said in verdicts.items()}
    return {name: line._asdict() for name, line in {**lines, "coin": _coin(human)}.items()}


def ceilings(human: Sequence[int]) -> Lines:
    """The most that a judge reaches who never says tie: `never_tie`, each figure by itself.

    It is right wherever people name a winner; of the n_0 ties it calls a "1" and n_0 - a "2". Accuracy is the same for
    every a. p_e is linear in a, so kappa is highest at an end: all ties to the label that people use less. F1 of 1 is
    2 n_1 / (2 n_1 + a), convex in a as F1 of 2 is, so macro-F1 is highest at an end, too.
    """
    if not human:
        return {}
    right: Counter[tuple[int, int | None]] = Counter((label, label) for label in human if label)
    ties = sum(label == 0 for label in human)
    ends = [_figures(Counter({**right, (0, side): ties}), human) for side in (1, 2)]
    return {
        "never_tie": {
            name: max((value for value in values if value is not None), default=None)
            for name, *values in zip(Figures._fields, *ends, strict=True)
        }
    }


def _figures(counts: Counter[tuple[int, int | None]], human: Sequence[int]) -> Figures:
    return of_counts(counts, sorted(set(human)))


def _coin(human: Sequence[int]) -> Figures:
    """Exact means over the coin's 2^n sequences of verdicts.

    Given that K of n verdicts are 1, they fall anywhere alike. So the number of right ones among the n_1 samples that
    people call 1 has the mean n_1 K / n, F1 of 1 has 2 n_1 K / (n (n_1 + K)), and p_o has p_e, which makes kappa 0.
    K is binomial.
    """
    n, used = len(human), sorted(set(human))
    k = np.arange(n + 1)
    log_chance = np.concatenate([[0.0], np.cumsum(np.log((n + 1 - k[1:]) / k[1:]))]) - n * np.log(2)
    f1 = [0.0]
    for label in (1, 2):
        people = human.count(label)
        f1.append(float(np.exp(log_chance) @ (2 * people * k / (n * (people + np.maximum(k, 1))))))
    decided = n - human.count(0)
    return Figures(decided / (2 * n), sum(f1[label] for label in used) / len(used), 0.0)
