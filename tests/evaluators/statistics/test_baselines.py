"""Lines to beat, against all that a coin can throw and all that a judge without ties can say."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, cohen_kappa_score, f1_score

from evaluators import metrics

LABELS = [
    [1, 2, 0, 1, 1],
    [1, 1, 1],
    [0, 0],
    [2, 0, 0, 1],
    [1, 2, 2, 2],
    [1],
    [1, 1, 1, 1, 1, 2, 0, 0],
    [0, 2, 2, 0, 2, 0, 0],
    [1, 2, 1, 2, 0, 0, 0, 0],
]


def figures(human: Sequence[int], judge: Sequence[int]) -> tuple[float, float, float | None]:
    """scikit-learn's, macro-F1 over the labels that people use."""
    labels = sorted(set(human))
    kappa = cohen_kappa_score(human, judge) if len({*human, *judge}) > 1 else None
    return accuracy_score(human, judge), f1_score(human, judge, labels=labels, average="macro", zero_division=0), kappa


@pytest.mark.parametrize("human", LABELS)
def test_the_coin_is_the_mean_and_the_ceiling_the_maximum_over_all_sequences(human: list[int]) -> None:
    all_of_them = [figures(human, judge) for judge in itertools.product((1, 2), repeat=len(human))]
    accuracy, macro_f1 = ([row[at] for row in all_of_them] for at in (0, 1))
    kappa = [row[2] for row in all_of_them if row[2] is not None]
    coin = metrics.baselines(human, [(1, 1)] * len(human))["coin"]
    means = {"accuracy": np.mean(accuracy), "macro_f1": np.mean(macro_f1), "kappa": np.mean(kappa) if kappa else 0}
    assert coin == pytest.approx(means, abs=1e-12)
    best = metrics.ceilings(human)["never_tie"]
    assert (best["accuracy"], best["macro_f1"]) == pytest.approx((max(accuracy), max(macro_f1)), abs=1e-12)
    if len(set(human)) > 1:
        assert best["kappa"] == pytest.approx(max(kappa), abs=1e-12)


def test_no_split_of_many_ties_is_better_than_the_ceiling() -> None:
    human = [1] * 70 + [2] * 10 + [0] * 20
    splits = [figures(human, [1] * 70 + [2] * 10 + [1] * ones + [2] * (20 - ones)) for ones in range(21)]
    best = metrics.ceilings(human)["never_tie"]
    assert tuple(best.values()) == pytest.approx([max(row[at] or 0 for row in splits) for at in range(3)], abs=1e-12)
    assert best["kappa"] == pytest.approx(0.583, abs=5e-4)  # an even split reaches 0.524


def test_sides_and_lengths() -> None:
    human = [1, 2, 0, 1, 2, 0, 2]
    lengths = [(5, 2), (1, 9), (4, 4), (0, 3), (7, 6), (2, 1), (3, 3)]
    said = {
        "always_1": [1] * 7,
        "always_2": [2] * 7,
        "longer": [1, 2, 0, 2, 1, 1, 0],
        "shorter": [2, 1, 0, 1, 2, 2, 0],
    }
    lines = metrics.baselines(human, lengths)
    assert list(lines) == [*said, "coin"]
    for name, judge in said.items():
        assert tuple(lines[name].values()) == pytest.approx(figures(human, judge), abs=1e-12)
    # Of people who know no tie, a tie of equal lengths is an error and no third label.
    lines = metrics.baselines([1, 2, 1], [(2, 1), (1, 2), (3, 3)])
    assert lines["longer"]["macro_f1"] == pytest.approx((2 / 3 + 1) / 2)
    assert metrics.baselines([], []) == {} and metrics.ceilings([]) == {}


def test_the_coin_of_many_samples_is_finite_and_near_its_limit() -> None:
    """With n large, K is n / 2: F1 of 1 is 2 n_1 / (2 n_1 + n) for shares p_1 = n_1 / n, so p_1 / (p_1 + 1/2)."""
    human = [1] * 40_000 + [2] * 10_000
    coin = metrics.baselines(human, [(1, 1)] * 50_000)["coin"]
    assert coin["macro_f1"] == pytest.approx((0.8 / 1.3 + 0.2 / 0.7) / 2, abs=1e-4)
    assert (coin["accuracy"], coin["kappa"]) == (0.5, 0.0)


def test_llmeval2_from_its_label_counts() -> None:
    """1,050 / 1,021 / 482 labels: the figures of DESIGN section 6; macro-F1 by hand."""
    human = [1] * 1050 + [2] * 1021 + [0] * 482
    best = metrics.ceilings(human)["never_tie"]
    assert (best["accuracy"], best["kappa"]) == pytest.approx((0.8112, 0.6829), abs=5e-5)
    by_split = [(2100 / (2100 + ones) + 2042 / (2042 + 482 - ones)) / 3 for ones in range(483)]
    assert best["macro_f1"] == pytest.approx(max(by_split), abs=1e-12)
    lines = metrics.baselines(human, [(1, 1)] * 2553)
    assert lines["always_1"] == pytest.approx({"accuracy": 0.4112808, "macro_f1": 0.1942825, "kappa": 0}, abs=1e-7)
