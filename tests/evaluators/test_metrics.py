"""Figures against scikit-learn and scipy on random data, against recorded judges, and where they are not defined."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import accuracy_score, cohen_kappa_score, f1_score

from evaluators import metrics
from evaluators.running.tally import Agreement, agreement
from evaluators.statistics import tables
from evaluators.statistics.bootstrap import cluster_sums, resampled
from evaluators.statistics.by_role import RoleCounts
from evaluators.statistics.compare import paired
from evaluators.statistics.figures import of_verdicts

RECORDED = Path(__file__).parents[3] / "shared" / "data" / "recorded" / "llmeval2_select_verdicts.jsonl"
# GPT-4/Metrics_Reference of LLMBar's records, in the sample's order: (human, verdict) -> samples.
GPT4 = {(1, 1): 70, (1, 2): 19, (1, None): 3, (2, 2): 82, (2, 1): 25, (2, None): 1}


def _labels(text: str) -> list[int | None]:
    return [None if sign == "-" else int(sign) for sign in text]


def _people(labels: Sequence[int | None]) -> list[int]:
    return [label for label in labels if label is not None]


def _random(seed: int, n: int = 120) -> tuple[list[int], list[int | None]]:
    random = np.random.default_rng(seed)
    human = [int(label) for label in random.integers(0, 3, n)]
    judge = [
        None if u < 0.1 else (person if u < 0.6 else int(random.integers(0, 3)))
        for person, u in zip(human, random.random(n), strict=True)
    ]
    return human, judge


def test_recorded_judges_have_their_published_and_expected_figures() -> None:
    """Published: LLMBar's counts. The records are checked where they are at hand; one confusion table always is."""
    human = [person for (person, _), count in GPT4.items() for _ in range(count)]
    judge = [verdict for (_, verdict), count in GPT4.items() for _ in range(count)]
    assert metrics.accuracy(human, judge, unscored="wrong") == pytest.approx(152 / 200, abs=1e-12)
    assert metrics.macro_f1(human, judge, labels=(1, 2), unscored="wrong") == pytest.approx(0.766676, abs=1e-6)
    assert metrics.cohen_kappa(human, judge, unscored="wrong") == pytest.approx(0.528302, abs=1e-6)
    for line in RECORDED.read_text().splitlines() if RECORDED.is_file() else ():
        record = json.loads(line)
        people = _people(_labels(record["human"]))
        order12, order21 = _labels(record["order12"]), _labels(record["order21"])
        both = [(person == a == b) for person, a, b in zip(people, order12, order21, strict=True)]
        between = [0 if label is None else label for label in order12], [0 if v is None else v for v in order21]
        found = {
            "accuracy_order12": metrics.accuracy(people, order12, unscored="wrong"),
            "accuracy_order21": metrics.accuracy(people, order21, unscored="wrong"),
            "accuracy_both": sum(both) / 200,
            # LLMBar counts two unscored verdicts as agreeing: a label of their own.
            "order_agreement": metrics.order_agreement(
                *([-1 if v is None else v for v in o] for o in (order12, order21))
            ),
            "macro_f1_order12": metrics.macro_f1(people, order12, labels=(1, 2), unscored="wrong"),
            "macro_f1_order21": metrics.macro_f1(people, order21, labels=(1, 2), unscored="wrong"),
            "kappa_order12": metrics.cohen_kappa(people, order12, unscored="wrong"),
            "kappa_order21": metrics.cohen_kappa(people, order21, unscored="wrong"),
            "kappa_between_orders": metrics.cohen_kappa(*between),
            "first_position_rate": metrics.first_position_rate(order12, order21),
        }
        assert found == pytest.approx(record["expected"], abs=1e-6)
        names = {"correct_False": "accuracy_order12", "correct_True": "accuracy_order21"}
        names |= {"correct_both": "accuracy_both", "equal": "order_agreement"}
        for published, name in names.items():
            count = int(record["published"][published].split(" / ")[0])
            assert round((found[name] or 0) * 200, 9) == count


@pytest.mark.parametrize("seed", range(6))
def test_one_table_and_many_at_once_are_what_sklearn_says(seed: int) -> None:
    human, judge = _random(seed)
    kept = [(a, b) for a, b in zip(human, judge, strict=True) if b is not None]
    wrong = [(a, -1 if b is None else b) for a, b in zip(human, judge, strict=True)]
    sums = tables.cells(human, judge).sum(0)
    for rows, unscored in ((kept, "exclude"), (wrong, "wrong")):
        a, b = [row[0] for row in rows], [row[1] for row in rows]
        labels = [0, 1, 2]
        is_wrong = unscored == "wrong"
        way: metrics.Unscored = "wrong" if is_wrong else "exclude"
        for own, vectorised, expected in (
            (metrics.accuracy(human, judge, unscored=way), tables.accuracy(is_wrong), accuracy_score(a, b)),
            (
                metrics.macro_f1(human, judge, unscored=way),
                tables.macro_f1(is_wrong, labels),
                f1_score(a, b, labels=labels, average="macro"),
            ),
            (metrics.cohen_kappa(human, judge, unscored=way), tables.kappa(is_wrong), cohen_kappa_score(a, b)),
        ):
            assert own == pytest.approx(expected, abs=1e-12)
            assert float(vectorised(sums)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_run_counts_as_the_functions_do_and_an_absent_label_has_no_f1(seed: int) -> None:
    human, judge = _random(seed)
    found = agreement(Counter(zip(human, judge, strict=True)))
    assert found.samples + found.unscored == len(human)
    assert found.accuracy == pytest.approx(metrics.accuracy(human, judge), abs=1e-12)
    assert found.macro_f1 == pytest.approx(metrics.macro_f1(human, judge), abs=1e-12)
    assert found.kappa == pytest.approx(metrics.cohen_kappa(human, judge), abs=1e-12)
    alone = agreement({(1, 1): 3, (1, None): 1})
    assert (alone.samples, alone.unscored, alone.labels) == (3, 1, (1,))
    assert (alone.accuracy, alone.macro_f1, alone.kappa) == (1, metrics.macro_f1([1, 1, 1], [1, 1, 1]), None)
    assert agreement({(1, None): 2}) == Agreement(0, 2, (), None, None, None)


def test_what_is_not_defined_is_none_and_what_is_no_label_is_refused() -> None:
    for function in (metrics.accuracy, metrics.macro_f1, metrics.cohen_kappa):
        assert function([], []) is None
        assert function([1, 2], [None, None]) is None
        with pytest.raises(ValueError, match="same samples"):
            function([1], [1, 2])
        with pytest.raises(ValueError, match="human label 3"):
            function([3], [1])
        with pytest.raises(ValueError, match="verdict 7"):
            function([1], [7])
    assert metrics.accuracy([1, 2], [None, None], unscored="wrong") == 0
    assert metrics.accuracy([1], [1]) == 1
    assert metrics.macro_f1([1, 1], [1, 1]) == 1
    assert metrics.cohen_kappa([1, 1], [1, 1]) is None
    assert metrics.cohen_kappa([1, 1], [1, 2]) == 0
    assert metrics.order_agreement([], []) is None
    assert metrics.order_agreement([None] * 5, [None] * 5) is None
    assert metrics.order_agreement([None] * 5, [None] * 5, unscored="wrong") == 0
    assert metrics.order_agreement([1, None, None, 2], [1, None, 1, 1]) == 0.5
    assert metrics.order_agreement([1, None, None, 2], [1, None, 1, 1], unscored="wrong") == 0.25
    assert metrics.first_position_rate([0, None], [0, 0]) is None
    assert metrics.longer_rate([1, 0, 2], [5, 9, 7], [5, 2, 7]) is None
    assert metrics.longer_rate([1, 2, 2], [5, 9, 7], [4, 2, 8]) == pytest.approx(2 / 3)


def test_a_label_that_people_never_use_is_an_error_and_no_label_of_macro_f1() -> None:
    """One verdict "tie" where people know none: F1 of 1 and 2 as scikit-learn has them, not their mean with a 0."""
    human = [1] * 100 + [2] * 100
    judge: list[int | None] = [1] * 70 + [2] * 30 + [2] * 75 + [1] * 25
    said = [0, *judge[1:]]
    expected = f1_score(human, said, labels=[1, 2], average="macro")
    assert metrics.macro_f1(human, said) == pytest.approx(expected)
    assert agreement(Counter(zip(human, said, strict=True))).macro_f1 == pytest.approx(expected)
    found = paired(human, judge, said, [f"q{at}" for at in range(200)], draws=500)["difference"]["macro_f1"]
    before = f1_score(human, judge, labels=[1, 2], average="macro")
    assert found["difference"] == pytest.approx(expected - before)
    assert abs(found["difference"]) < 0.01 and found["low"] > -0.03 and found["high"] < 0.03
    single = of_verdicts(human, said, [f"q{at}" for at in range(200)], 2000)["macro_f1"]
    assert single["value"] == pytest.approx(expected)
    assert single["high"] - single["low"] < 0.14


def test_bootstrap_draws_whole_clusters() -> None:
    """The draws' mean and variance are those of a sum of n draws from the clusters' sums."""
    random = np.random.default_rng(0)
    clusters = [str(number // 3) for number in range(90)]
    sums = cluster_sums(random.random((90, 2)), clusters)
    drawn = resampled(sums, draws=20_000, seed=1)
    assert drawn.shape == (20_000, 2)
    assert drawn.mean(0) == pytest.approx(sums.sum(0), rel=2e-3)
    assert drawn.var(0) == pytest.approx(len(sums) * sums.var(0), rel=0.05)
    assert np.array_equal(drawn, resampled(sums, draws=20_000, seed=1))


def test_two_judges_on_the_same_samples() -> None:
    human = [1, 2] * 50
    first: list[int | None] = [1] * 100
    second: list[int | None] = [1, 2] * 40 + [1, None] * 10
    found = paired(human, first, second, [str(number) for number in range(100)], draws=2000)
    assert found["difference"]["accuracy"]["difference"] == pytest.approx(0.4)
    assert found["difference"]["accuracy"]["low"] == pytest.approx(0.3, abs=0.03)
    assert found["difference"]["accuracy"]["high"] == pytest.approx(0.5, abs=0.03)
    assert (found["only_first_right"], found["only_second_right"]) == (0, 40)
    assert found["mcnemar_exact_p"] == pytest.approx(2 / 2**40)
    assert found["mcnemar_p"] == pytest.approx(2 * norm.sf(40**0.5))
    assert found["both_scored"] == 90 and found["same_verdict"] == pytest.approx(50 / 90)
    # Four queries that lean the same way: 1 in 8, and not the 1 in 22 that chi-squared would have it.
    few = paired([1] * 40, [2] * 40, [1] * 40, [f"q{at // 10}" for at in range(40)], draws=200)
    assert few["mcnemar_p"] == few["mcnemar_exact_p"] == pytest.approx(1 / 8)
    silent = paired(human, [None] * 100, [None] * 100, [str(number) for number in range(100)], draws=200)
    assert silent["same_verdict"] is None and silent["both_scored"] == 0
    same = paired([1, 1], [1, 1], [1, 1], ["a", "b"], draws=200)
    assert same["difference"]["kappa"]["difference"] is None
    assert same["error_correlation"] is None


def test_a_role_is_compared_with_verdicts_that_there_are() -> None:
    """A scored review of an unscored sample agrees with no verdict, and is not held to disagree with one."""
    review = {"neuron": 1, "scores": [8, 4]}
    counts = RoleCounts()
    for winner in (1, 2, None):
        counts.add({"roles": [{"name": "A"}], "layers": [[review]], "human": None, "verdict": {"winner": winner}})
    [row] = counts.table()
    assert row["agrees_with_verdict"] == 0.5 and row["reviews"] == 3
