"""Figures, tests and intervals against statsmodels, on random data."""

from __future__ import annotations

import math

import numpy as np
import pytest
from statsmodels.api import OLS
from statsmodels.stats.contingency_tables import mcnemar as their_mcnemar
from statsmodels.stats.inter_rater import cohens_kappa, to_table
from statsmodels.stats.proportion import proportion_confint

from evaluators import metrics
from evaluators.statistics import tables
from evaluators.statistics.bootstrap import bootstrap
from evaluators.statistics.compare import mcnemar, paired

SEEDS = range(5)
NORMAL_975 = 1.959964


def _labels(random: np.random.Generator, count: int, skill: float) -> tuple[list[int], list[int]]:
    human = random.choice([0, 1, 2], count, p=[0.2, 0.45, 0.35])
    judge = np.where(random.random(count) < skill, human, random.choice([0, 1, 2], count, p=[0.1, 0.6, 0.3]))
    return human.tolist(), judge.tolist()


@pytest.mark.parametrize("seed", SEEDS)
def test_kappa_and_its_interval(seed: int) -> None:
    """The bootstrap's half-width is 1.96 of the asymptotic deviation (Fleiss, Cohen and Everitt 1969)."""
    human, judge = _labels(np.random.default_rng(seed), 1500, 0.5)
    theirs = cohens_kappa(to_table(np.array([human, judge]).T, bins=3)[0])
    assert metrics.cohen_kappa(human, judge) == pytest.approx(theirs.kappa, abs=1e-12)
    found = bootstrap(tables.cells(human, judge), range(len(human)), tables.kappa(False), draws=4000, seed=seed)
    assert found is not None
    assert (found.high - found.low) / 2 == pytest.approx(NORMAL_975 * theirs.std_kappa, rel=0.06)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_interval_of_a_share(seed: int) -> None:
    human, judge = _labels(np.random.default_rng(seed), 1500, 0.5)
    right = sum(a == b for a, b in zip(human, judge, strict=True))
    found = bootstrap(tables.cells(human, judge), range(len(human)), tables.accuracy(False), draws=4000, seed=seed)
    assert found is not None
    # A tenth of the half-width is what two percentiles of 4,000 draws are off by.
    width = NORMAL_975 * math.sqrt(0.25 / len(human))
    for method in ("normal", "wilson"):
        assert (found.low, found.high) == pytest.approx(proportion_confint(right, 1500, method=method), abs=width / 10)


@pytest.mark.parametrize("seed", SEEDS)
def test_clustered_intervals_are_those_of_cluster_robust_errors(seed: int) -> None:
    """A mean is a regression on a constant; its errors may be related within a query (Liang and Zeger 1986)."""
    random = np.random.default_rng(seed)
    queries = np.repeat(np.arange(300), random.integers(1, 8, 300))
    easy = random.random(300)[queries]
    right = (random.random(len(queries)) < easy).astype(float)
    fit = OLS(right, np.ones(len(right))).fit(cov_type="cluster", cov_kwds={"groups": queries})
    rows = np.stack([right, np.ones_like(right)], axis=1)
    halves = []
    for clusters in (queries.tolist(), range(len(queries))):
        found = bootstrap(rows, clusters, tables.rate, draws=4000, seed=seed)
        assert found is not None
        halves.append((found.high - found.low) / 2)
    assert halves[0] == pytest.approx(NORMAL_975 * float(fit.bse[0]), rel=0.08)
    assert halves[0] > 1.2 * halves[1]


@pytest.mark.parametrize("seed", SEEDS)
def test_mcnemar(seed: int) -> None:
    random = np.random.default_rng(seed)
    for _ in range(50):
        both, first, second, neither = (int(k) for k in random.integers(0, 40, 4))
        theirs = their_mcnemar([[both, first], [second, neither]], exact=True)
        assert mcnemar(first, second) == pytest.approx(theirs.pvalue, abs=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_two_judges_of_the_same_samples(seed: int) -> None:
    random = np.random.default_rng(seed)
    human, one = _labels(random, 400, 0.5)
    other = [b if random.random() < 0.7 else int(random.integers(0, 3)) for b in one]
    found = paired(human, one, other, [str(i) for i in range(400)], draws=200)
    right, also = np.equal(one, human), np.equal(other, human)
    table = to_table(np.stack([~right, ~also], axis=1).astype(int), bins=2)[0]
    assert found["mcnemar_p"] == pytest.approx(their_mcnemar(table, exact=True).pvalue, abs=1e-12)
    assert (found["only_first_right"], found["only_second_right"]) == (table[0, 1], table[1, 0])
