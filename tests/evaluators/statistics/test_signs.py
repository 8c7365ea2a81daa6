"""McNemar's test by query against enumeration and statsmodels."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.stats import chi2
from statsmodels.stats.contingency_tables import mcnemar as their_mcnemar

from evaluators.statistics.signs import mcnemar, sign_flips


@pytest.mark.parametrize(
    "leads", [[1], [5, -5], [1] * 7 + [-1] * 2, [4, 4, -4, 2, -1, 3], [10, -1, -1, -2], [3, 3, 3, -1, -1, 6, -2, 1]]
)
def test_the_exact_value_is_the_share_of_all_swaps_that_are_as_far_apart(leads: list[int]) -> None:
    far = abs(sum(leads))
    swaps = [
        abs(sum(sign * lead for sign, lead in zip(signs, leads, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(leads))
    ]
    assert sign_flips(leads).exact == pytest.approx(sum(swap >= far for swap in swaps) / len(swaps), abs=1e-12)
    assert sign_flips(leads).robust == pytest.approx(chi2.sf(far**2 / sum(d * d for d in leads), 1), abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_with_a_query_for_each_sample_it_is_mcnemars(seed: int) -> None:
    random = np.random.default_rng(seed)
    for _ in range(40):
        both, first, second, neither = (int(k) for k in random.integers(0, 40, 4))
        sides = [(True, False)] * first + [(False, True)] * second + [(False, False)] * (both + neither)
        found = mcnemar([a for a, _ in sides], [b for _, b in sides], range(len(sides)))
        table = [[both, first], [second, neither]]
        assert found.exact == pytest.approx(their_mcnemar(table, exact=True).pvalue, abs=1e-12)
        if first + second:
            theirs = their_mcnemar(table, exact=False, correction=False).pvalue
            assert found.robust == pytest.approx(theirs, abs=1e-12)
    assert mcnemar([], [], []) == (1, 1)


def test_copies_of_a_sample_within_its_query_prove_nothing_more() -> None:
    """Ten times the same samples of the same queries: the same p-values; as samples of their own, far smaller ones."""
    sides = [(True, False)] * 4 + [(False, True)] * 11
    first, second = [a for a, _ in sides] * 10, [b for _, b in sides] * 10
    once = mcnemar(first[:15], second[:15], range(15))
    assert mcnemar(first, second, list(range(15)) * 10) == pytest.approx(once)
    assert mcnemar(first, second, range(150)).exact < once.exact / 1000


def test_many_thousand_queries_are_summed_too() -> None:
    """Against the normal approximation, which is good there."""
    random = np.random.default_rng(1)
    leads = [int(d) for d in random.integers(-3, 4, 20_000) if d]
    leads += [1] * 300
    found = sign_flips(leads)
    z = (abs(sum(leads)) - 0.5) / math.sqrt(sum(d * d for d in leads))
    assert found.exact == pytest.approx(math.erfc(z / math.sqrt(2)), rel=0.02)
