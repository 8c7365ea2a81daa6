"""Coverage, false alarms and power where the truth is known. The tables in docs/trusting_the_judge.md are of `study`.

Bounds leave three standard errors of a share of so many studies. Near 0 and 1 and with 20 queries few outcomes are
possible, so that no interval can hold the truth in just 95 % of them: there only the lower bound is asked for.
"""

from __future__ import annotations

import math

import pytest

from tests.evaluators.statistics.study import (
    COMMON,
    RARE,
    Design,
    Seen,
    agreement,
    compared,
    shares,
    strengths,
    times_faster,
)

pytestmark = pytest.mark.slow


def _covers(seen: Seen, *, at_most: float = 0.97) -> bool:
    slack = 3 * math.sqrt(0.95 * 0.05 / max(seen.given, 1))
    return 0.93 - slack <= seen.coverage <= at_most + slack


@pytest.mark.parametrize("queries", [20, 80, 500])
@pytest.mark.parametrize("samples", [1, 4, 10])
def test_shares(queries: int, samples: int) -> None:
    studies = {20: 1000, 80: 500, 500: 200}[queries]
    for alike in (0.0, 0.3, 1.0) if samples > 1 else (0.0,):
        design = Design(queries, samples, alike)
        for accuracy in (0.0, 0.02, 0.1, 0.5, 0.7, 0.95, 1.0):
            seen = shares(design, accuracy, studies if 0 < accuracy < 1 else 3)
            edge = accuracy in (0.0, 1.0) or min(accuracy, 1 - accuracy) * queries < 10
            assert _covers(seen, at_most=1.0 if edge else 0.97), (design, accuracy, seen)
            assert seen.withheld == 0


@pytest.mark.parametrize(
    "design",
    [Design(20, 4, 0.3), Design(20, 10), Design(80, 1, 0), Design(80, 4), Design(500, 1, 0), Design(80, 10, 0.3, RARE)],
    ids=str,
)
@pytest.mark.parametrize("accuracy", [0.6, 0.8])
def test_accuracy_macro_f1_and_kappa(design: Design, accuracy: float) -> None:
    studies = {20: 600, 80: 500, 500: 150}[design.queries]
    for name, seen in agreement(design, accuracy, studies).items():
        assert _covers(seen, at_most=0.97 if design.queries > 20 else 0.99), (name, seen)
        assert seen.withheld == 0 or (name == "macro_f1" and design.people != COMMON) or accuracy > 0.7


@pytest.mark.parametrize(
    "design",
    [
        Design(20, 4),
        Design(20, 10, 0.3),
        Design(80, 4),
        Design(80, 10, 0.3),
        Design(500, 1, 0),
        Design(80, 4, 0.3, RARE),
    ],
    ids=str,
)
def test_equal_judges_are_told_apart_as_often_as_the_level_says(design: Design) -> None:
    studies = {20: 800, 80: 600, 500: 200}[design.queries]
    found = compared(design, (0.7, 0.7), studies, copied=0.3)
    slack = 3 * math.sqrt(0.05 * 0.95 / studies)
    assert 0.03 - slack <= found.rejected <= 0.07 + slack
    for seen in (found.accuracy, found.kappa, found.macro_f1):
        assert _covers(seen, at_most=0.99), seen


def test_more_queries_find_a_difference_more_often_and_more_samples_of_a_query_do_not() -> None:
    """With errors that a query's samples share, ten samples of a query are worth one."""
    found = {
        (queries, samples): compared(Design(queries, samples), (0.6, 0.75), studies, draws=100).found
        for queries, samples, studies in ((20, 1, 400), (20, 10, 400), (80, 4, 300), (500, 1, 100))
    }
    assert found[20, 1] == pytest.approx(found[20, 10], abs=0.08)
    assert found[20, 10] < found[80, 4] < found[500, 1] and found[500, 1] > 0.98


@pytest.mark.parametrize(("queries", "votes", "studies"), [(20, 1, 200), (20, 4, 200), (80, 4, 150)])
def test_strengths_win_rates_and_ratios_of_times(queries: int, votes: int, studies: int) -> None:
    for name, seen in strengths(queries, votes, studies).items():
        # Three intervals of a study, whose errors are related.
        slack = 3 * math.sqrt(0.95 * 0.05 / studies)
        assert 0.93 - slack <= seen.coverage <= 0.97 + slack, (name, seen)
    assert _covers(times_faster(queries, votes, 3 * studies))
