"""Intervals against statsmodels and formulas by hand, and where they are withheld."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import t
from statsmodels.api import OLS
from statsmodels.stats.inter_rater import cohens_kappa, to_table
from statsmodels.stats.proportion import proportion_confint

from evaluators.statistics import tables
from evaluators.statistics.bootstrap import Array
from evaluators.statistics.compare import paired
from evaluators.statistics.figures import of_verdicts
from evaluators.statistics.intervals import (
    FISHER,
    LOG,
    design_effect,
    difference_of_shares,
    draw,
    share,
    smooth,
)

NORMAL_975 = 1.959964


def wilson(p: float, n: float, z: float) -> tuple[float, float]:
    """The roots of (p - x)^2 = z^2 x (1 - x) / n."""
    a, b, c = 1 + z * z / n, -(2 * p + z * z / n), p * p
    root = math.sqrt(b * b - 4 * a * c)
    return (-b - root) / (2 * a), (-b + root) / (2 * a)


def rows(right: Array) -> Array:
    return np.stack([right, np.ones_like(right)], axis=1)


def clustered(seed: int, queries: int = 60) -> tuple[Array, list[int], Array]:
    random = np.random.default_rng(seed)
    of = np.repeat(np.arange(queries), random.integers(1, 8, queries))
    return (random.random(len(of)) < random.random(queries)[of]).astype(float), of.tolist(), of


@pytest.mark.parametrize("right", [0, 1, 7, 20])
def test_a_share_of_unrelated_samples_has_wilsons_interval(right: int) -> None:
    found = share(rows(np.repeat([1.0, 0.0], [right, 20 - right])), range(20))
    assert (found.low, found.high) == pytest.approx(proportion_confint(right, 20, method="wilson"), abs=1e-6)
    assert found.clusters == 20 and found.why is None


@pytest.mark.parametrize("seed", range(5))
def test_a_share_has_wilsons_interval_of_as_many_samples_as_its_cluster_robust_error_says(seed: int) -> None:
    """A share is a regression on a constant, with errors that are related within a query (Liang and Zeger 1986)."""
    right, clusters, groups = clustered(seed)
    fit = OLS(right, np.ones(len(right))).fit(cov_type="cluster", cov_kwds={"groups": groups})
    p = right.mean()
    n = p * (1 - p) / float(fit.bse[0]) ** 2
    found = share(rows(right), clusters)
    assert (found.low, found.high) == pytest.approx(wilson(p, n, t.ppf(0.975, 59)), rel=1e-6)
    alone = share(rows(right), range(len(right)))
    assert alone.low is not None and found.low is not None and found.low < alone.low


@pytest.mark.parametrize(("right", "low", "high"), [(0, True, False), (1, False, True)])
def test_at_the_ends_all_samples_of_a_query_count_as_one(right: int, low: bool, high: bool) -> None:
    """Wilson's interval of sum(m)^2 / sum(m^2) samples: 20 where all queries have as many."""
    found = share(rows(np.full(200, float(right))), [at // 10 for at in range(200)])
    assert (found.low, found.high) == pytest.approx(wilson(right, 20, t.ppf(0.975, 19)), abs=1e-12)
    assert (found.low == 0) is low and (found.high == 1) is high
    sizes = [1] * 10 + [30] * 2
    found = share(rows(np.full(70, float(right))), np.repeat(range(12), sizes).tolist())
    n = 70**2 / sum(size**2 for size in sizes)
    assert (found.low, found.high) == pytest.approx(wilson(right, n, t.ppf(0.975, 11)), abs=1e-12)
    # Four queries with an error do not show what an error in a query says of the others.
    few = np.full(200, float(right))
    few[[0, 10, 20, 30]] = 1 - right
    found = share(rows(few), [at // 10 for at in range(200)])
    assert (found.low, found.high) == pytest.approx(wilson(few.mean(), 20, t.ppf(0.975, 19)), abs=1e-12)


def test_below_ten_queries_there_is_no_interval_and_it_says_so() -> None:
    human, judge = [1, 2] * 27, [1, 2, 2] * 18
    clusters = [f"q{at // 6}" for at in range(54)]
    figures = of_verdicts(human, judge, clusters, 200)
    differences = paired(human, judge, human, clusters, draws=200)["difference"]
    for figure in (*figures.values(), *differences.values()):
        assert figure["low"] is None and figure["high"] is None
        assert figure["why"] == "9 queries, and an interval takes 10"
    assert all(figure["value"] is not None for figure in figures.values())
    # Samples that do not count make no cluster: 12 queries, 9 of which name a winner.
    counted = np.array([(1.0, float(at < 9)) for at in range(12)]) * [[1, 1]]
    counted[:, 0] *= counted[:, 1]
    assert share(counted, range(12)).why == "9 queries, and an interval takes 10"


def test_a_mean_of_a_label_that_people_hardly_use_has_no_interval() -> None:
    human = [0] * 4 + [1, 2] * 48
    judge = [1 if at % 5 == 0 else label for at, label in enumerate(human)]
    found = of_verdicts(human, judge, [f"q{at}" for at in range(100)], 300)
    assert found["macro_f1"]["low"] is None and found["macro_f1"]["why"] == "people say tie in 4 queries only"
    assert found["macro_f1"]["value"] is not None and found["kappa"]["low"] is not None
    perfect = of_verdicts(human, human, [f"q{at}" for at in range(100)], 300)
    assert perfect["kappa"]["value"] == 1 and perfect["kappa"]["why"] == "it is 1, the end of its range"
    assert perfect["accuracy"]["low"] == pytest.approx(proportion_confint(100, 100, method="wilson")[0], abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_a_difference_of_shares_is_that_of_agresti_and_min(seed: int) -> None:
    """Half a sample in each cell of the table of n / deff samples; deff from a cluster-robust regression."""
    one, clusters, groups = clustered(seed, 80)
    other = np.where(np.random.default_rng(seed + 9).random(len(one)) < 0.3, 1 - one, one)
    gap = other - one
    fit = OLS(gap, np.ones(len(gap))).fit(cov_type="cluster", cov_kwds={"groups": groups})
    for where, z, effect in (
        (clusters, t.ppf(0.975, 79), float(fit.bse[0]) ** 2 * len(gap) / gap.var()),
        (range(len(gap)), NORMAL_975, 1.0),
    ):
        assert design_effect((gap > 0).astype(float), (gap < 0).astype(float), where) == pytest.approx(effect)
        n = len(gap) / effect
        up, down = ((n * (gap == side).mean() + 0.5) / (n + 2) for side in (1, -1))
        half = z * math.sqrt((up + down - (up - down) ** 2) / (n + 2))
        found = difference_of_shares(one, other, where)
        assert (found.low, found.high) == pytest.approx((up - down - half, up - down + half), abs=1e-6)


def test_two_judges_that_never_differ_may_still_differ() -> None:
    found = difference_of_shares(np.ones(200), np.ones(200), [at // 4 for at in range(200)])
    assert found.low is not None and found.high is not None
    assert -0.06 < found.low == -found.high < 0


@pytest.mark.parametrize("seed", range(5))
def test_kappas_error_is_the_asymptotic_one(seed: int) -> None:
    """Fleiss, Cohen and Everitt (1969), on Fisher's scale."""
    random = np.random.default_rng(seed)
    human = random.choice([0, 1, 2], 1500, p=[0.2, 0.45, 0.35])
    judge = np.where(random.random(1500) < 0.5, human, random.choice([0, 1, 2], 1500, p=[0.1, 0.6, 0.3]))
    theirs = cohens_kappa(to_table(np.array([human, judge]).T, bins=3)[0])
    rows_ = tables.cells(human.tolist(), judge.tolist())
    found = smooth(draw(rows_, range(1500), draws=4000, seed=seed), tables.kappa(True), FISHER)
    half = NORMAL_975 * theirs.std_kappa / (1 - theirs.kappa**2)
    ends = [math.tanh(math.atanh(theirs.kappa) + side * half) for side in (-1, 1)]
    assert (found.low, found.high) == pytest.approx(tuple(ends), abs=0.05 * (ends[1] - ends[0]))


def test_errors_of_few_queries_are_taken_for_those_of_all_their_samples() -> None:
    """Judge and people differ in three queries of ten samples, in one sample each: as wide as with 20 samples."""
    human = ([1, 2] * 100)[:200]
    judge = [3 - label if at in (3, 64, 125) else label for at, label in enumerate(human)]
    clusters = [at // 10 for at in range(200)]
    rows_ = tables.cells(human, judge)
    narrow, wide = (smooth(draw(rows_, clusters, telling=n, draws=4000), tables.kappa(True), FISHER) for n in (5, 3))
    assert narrow.low is not None and wide.low is not None and wide.low < narrow.low - 0.1
    assert of_verdicts(human, judge, [str(c) for c in clusters], 4000)["kappa"]["low"] == pytest.approx(wide.low)


def test_a_ratio_is_normal_on_the_scale_of_its_logarithm() -> None:
    """Seconds with and without help, against the delta method by hand."""
    random = np.random.default_rng(2)
    times = random.gamma(4, [[5.0, 10.0]], (300, 2))
    columns = np.array([(a, 1.0, b, 1.0) for a, b in times])
    found = smooth(
        draw(columns, range(300), draws=4000), lambda r: tables.rate(r[..., 2:]) / tables.rate(r[..., :2]), LOG
    )
    means = times.mean(0)
    error = (times[:, 1] / means[1] - times[:, 0] / means[0]).std(ddof=1) / math.sqrt(300)
    half = t.ppf(0.975, 299) * error
    expected = tuple(means[1] / means[0] * math.exp(side * half) for side in (-1, 1))
    assert (found.low, found.high) == pytest.approx(expected, rel=0.01)
