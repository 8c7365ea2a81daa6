"""The simulated population has the statistics that its closed forms say, through prompts, parsing and aggregation."""

from __future__ import annotations

import asyncio
import math
import re
from dataclasses import replace
from statistics import NormalDist, fmean

import pytest
from scipy import integrate, stats

from evaluators.errors import ConfigError
from evaluators.judges import Backend, make
from evaluators.judges.simulated import Simulated
from evaluators.messages import Place
from evaluators.network import Network
from evaluators.samples import Pair
from evaluators.statistics.planning import error_correlation, expected_accuracy
from evaluators.values import Judgement, Review
from tests.evaluators.fakes import judged

SAMPLES = 1000


def pairs(count: int) -> list[Pair]:
    return [Pair(f"s{n}", f"q{n}", f"a{n}", f"b{n}", human=1 + n % 2) for n in range(count)]


def run(argument: str, network: Network, samples: list[Pair]) -> list[Judgement]:
    judge = make(f"simulated:{argument}", Backend())
    return [judged(network, judge, pair=pair) for pair in samples]  # type: ignore[arg-type]


def accuracy(judgements: list[Judgement], samples: list[Pair]) -> float:
    return fmean(j.verdict.winner == pair.human for j, pair in zip(judgements, samples, strict=True))


def one_layer(width: int, *, both_orders: bool = True, aggregation: str = "mean-all") -> Network:
    roles = tuple(f"r{n}" for n in range(width))
    return Network(depth=1, roles=roles, both_orders=both_orders, aggregation=aggregation, max_roles=width + 8)


def assert_close(found: float, expected: float) -> None:
    # Four standard errors of a share: one false alarm in 16,000.
    assert abs(found - expected) < 4 * math.sqrt(expected * (1 - expected) / SAMPLES)


@pytest.mark.parametrize("width", [1, 4])
def test_width_with_correlated_errors(width):
    """Two normals of correlation rho have the same sign with probability 1/2 + arcsin(rho)/pi."""
    samples = pairs(SAMPLES)
    found = run("gap=1,sample=0.7,role=1,review=1,position=0.8", one_layer(width), samples)
    rho = 1 / math.sqrt(1 + 0.7**2 + (1**2 + 1**2 / 2) / width)
    assert_close(accuracy(found, samples), 0.5 + math.asin(rho) / math.pi)


def test_independent_votes_follow_condorcet():
    samples = pairs(SAMPLES)
    p, n = 0.7, 5
    gap = NormalDist().inv_cdf(p)  # fixed gap against one unit of noise: each vote is right with probability p
    network = one_layer(n, both_orders=False, aggregation="vote-all")
    found = run(f"gap={gap},fixed=1,sample=0,role=0,review=1", network, samples)
    majority = sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n // 2 + 1, n + 1))
    assert_close(accuracy(found, samples), majority)


def test_position_bias_shows_in_each_order_and_cancels_in_both():
    samples = pairs(SAMPLES)
    bias, spread = 0.8, math.sqrt(1 + 0.7**2 + 1 + 1)
    found = run(f"gap=1,sample=0.7,role=1,review=1,position={bias}", one_layer(1), samples)
    reviews = [item for judgement in found for item in judgement.layers[0] if isinstance(item, Review)]
    first = fmean((r.scores[0] > r.scores[1]) == (r.order == "12") for r in reviews)
    expected = NormalDist().cdf(bias / spread)
    assert abs(first - expected) < 4 * math.sqrt(expected * (1 - expected) / len(reviews))
    fair = run("gap=1,sample=0.7,role=1,review=1", one_layer(1), samples)
    assert [j.verdict.winner for j in fair] == [j.verdict.winner for j in found]
    assert [j.verdict.margin for j in fair] == pytest.approx([j.verdict.margin for j in found], abs=1e-5)


@pytest.mark.parametrize("network", [Network(depth=2), one_layer(3), Network(depth=2, connection="window:2")])
@pytest.mark.parametrize("argument", ["role=2,sample=1,herd=1", "skill=0.7,rho=0.2,persuaded=0.6,misled=0.3"])
def test_swapping_the_responses_of_every_pair_swaps_every_verdict(network, argument):
    samples = pairs(60)
    turned = [
        Pair(p.id, p.query, p.response2 or "", p.response1, human={1: 2, 2: 1}[int(p.human or 0)]) for p in samples
    ]
    before = run(argument, network, samples)
    after = run(argument, network, turned)
    swapped = {1: 2, 2: 1, 0: 0}
    assert [swapped[-1 if j.verdict.winner is None else j.verdict.winner] for j in before] == [
        j.verdict.winner for j in after
    ]
    assert [j.verdict.margin for j in before] == pytest.approx([-(j.verdict.margin or 0) for j in after], abs=1e-5)


def test_in_one_order_a_position_bias_does_not_swap():
    samples = pairs(200)
    turned = [
        Pair(p.id, p.query, p.response2 or "", p.response1, human={1: 2, 2: 1}[int(p.human or 0)]) for p in samples
    ]
    network = one_layer(1, both_orders=False)
    before, after = (run("position=3", network, both) for both in (samples, turned))
    assert fmean(b.verdict.winner == a.verdict.winner for b, a in zip(before, after, strict=True)) > 0.5


def test_the_same_place_has_the_same_reply_and_another_seed_another():
    samples = pairs(20)
    margins = [[j.verdict.margin for j in run(text, Network(), samples)] for text in ("", "", "seed=1")]
    assert margins[0] == margins[1] != margins[2]


def test_nobody_is_persuaded_where_people_name_no_winner_or_nothing_else_is_seen():
    """Without a right side there is none to be talked over to, and alone there is nobody to do it."""
    for human, connection in ((0, "full"), (None, "full"), (1, "window:1")):
        samples = [Pair(f"s{n}", f"q{n}", f"a{n}", f"b{n}", human=human) for n in range(20)]
        roles = ("x", "y", "z")
        network = Network(depth=2, roles=roles, connection=connection, both_orders=False)
        for judgement in run("persuaded=1,misled=1", network, samples):
            first, second = ([item.scores for item in layer if isinstance(item, Review)] for layer in judgement.layers)
            assert len(first) == 3 and second == [pytest.approx(scores, abs=1e-5) for scores in first]


def test_a_review_that_failed_is_replaced_by_a_fresh_opinion():
    judge = Simulated("mix=0.5,persuaded=0", Backend())
    pair = pairs(1)[0]
    alone = Place(pair, "review", layer=2, neuron=1)
    other = Review(1, 2, "12", 0, "r", (9.0, 1.0), "")
    assert judge.difference(replace(alone, seen=(other,))) == judge.difference(alone)
    own = Review(1, 1, "12", 0, "r", (9.0, 1.0), "")
    assert judge.difference(replace(alone, seen=(own, other))) != judge.difference(alone)


@pytest.mark.parametrize("width", [1, 4])
def test_the_planned_accuracy_of_a_beta_skill_is_that_of_a_run(width):
    """Errors of the mean of n neurons in both orders are smaller than one review's, so Phi's argument is larger."""
    samples = pairs(SAMPLES)
    mean, rho = 0.7, 0.2
    times = math.sqrt(2 * width / (1 + 0.5))
    a, b = mean * (1 - rho) / rho, (1 - mean) * (1 - rho) / rho
    expected, _ = integrate.quad(
        lambda p: stats.norm.cdf(times * stats.norm.ppf(p)) * stats.beta.pdf(p, a, b), 0, 1, limit=200
    )
    found = run(f"skill={mean},rho={rho},role=1,review=1", one_layer(width), samples)
    assert_close(accuracy(found, samples), expected)
    population = Simulated(f"skill={mean},rho={rho}", Backend()).population
    assert expected_accuracy(population, width) == pytest.approx(expected, abs=1e-4)
    assert 0 < error_correlation(population, (width, 2 * width)) < 1


def test_rounded_scores_tie():
    found = run("gap=0.5,step=1,sample=0,role=1,review=0", one_layer(1, both_orders=False), pairs(200))
    assert any(j.verdict.winner == 0 for j in found)
    assert all((j.verdict.margin or 0) == pytest.approx(round(j.verdict.margin or 0)) for j in found)


@pytest.mark.parametrize(
    ("argument", "why"),
    [
        *((wrong, "NAME=NUMBER") for wrong in ("talent=1", "gap", "gap=x", "gap=-1", "gap=nan", "gap=inf")),
        ("skill=1", "'skill=1': must be below 1"),
        ("mix=1.5", "'mix=1.5': must be at most 1"),
        ("skill=0.7,sample=1", "sample has no effect beside skill"),
        ("persuaded=0.4,herd=1", "herd has no effect beside persuaded"),
        ("rho=0.1", "rho belongs to skill"),
        ("skill=0.7,role=0,review=0", "needs role or review above 0"),
    ],
)
def test_wrong_parameters_are_refused(argument, why):
    with pytest.raises(ConfigError, match=re.escape(why)):
        Simulated(argument, Backend())


def test_its_abilities_are_said_without_a_server():
    assert asyncio.run(make("simulated:", Backend()).abilities()).structured
