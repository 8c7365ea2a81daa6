"""Simulated judges through a whole run, from the file of samples to the statistics of its records, against theory.

Every figure has three legs: a closed form (closed_forms.py), figures that were had elsewhere (a few in
simulated_runs.py, and all of `simulation_expectations.json` where that file is), and a run. Runs may be off by four
standard errors.
"""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from evaluators.statistics.compare import paired
from evaluators.statistics.figures import agreement, score
from tests.evaluators import closed_forms as theory
from tests.evaluators.simulated_runs import DRAWS, balanced, credit, differences, judge, known, narrower, near


def test_a_width_with_independent_errors(tmp_path: Path) -> None:
    for rows in known("A_condorcet"):
        for p, widths in rows.items():
            for n, expected in widths.items():
                assert theory.condorcet(float(p), int(n)) == pytest.approx(expected, abs=1e-6)
    for p, widest, count in ((0.6, 31, 300), (0.8, 9, 400)):
        population = f"skill={p},role=0"
        found = judge(
            tmp_path / f"{p}", population, balanced(count), width=widest, depth=1, both_orders=False,
            aggregation="vote-all",
        )  # fmt: skip
        for n in (n for n in (1, 3, 5, 9, 15, 31) if n <= widest):
            assert near(credit(narrower(found, n), "vote-all"), theory.condorcet(p, n), count), (p, n)


@pytest.mark.parametrize(
    ("mean", "rho", "width", "count"), [(0.7, 0.1, 9, 600), (0.7, 0.3, 9, 600), (0.8, 0.67, 3, 2000)]
)
def test_b_width_with_correlated_errors(tmp_path: Path, mean: float, rho: float, width: int, count: int) -> None:
    run = judge(
        tmp_path / "r", f"skill={mean},rho={rho},role=0", balanced(count), width=width, depth=1, both_orders=False,
        aggregation="vote-all",
    )  # fmt: skip
    for n in (n for n in (1, 3, 9) if n <= width):
        assert near(credit(narrower(run, n), "vote-all"), theory.beta_binomial(mean, rho, n), count), n
    right = np.array([[(r.scores[0] > r.scores[1]) == (s.human == 1) for r in s.layers[0]] for s in run.samples])
    # Two votes of a sample are right together with probability m^2 + rho m (1 - m).
    total = right.sum(1)
    together = total * (total - 1) / (width * (width - 1))
    expected = mean**2 + rho * mean * (1 - mean)
    assert abs(together.mean() - expected) < 4 * together.std() / math.sqrt(count)


def test_b_the_closed_forms_are_those_of_the_file() -> None:
    for rows in known("B_beta_binomial"):
        for name, row in rows.items():
            mean, rho = (float(part.partition("=")[2]) for part in name.split(","))
            for n, expected in row["exact"].items():
                assert theory.beta_binomial(mean, rho, int(n)) == pytest.approx(expected, abs=5.1e-5)
            for n, expected in row.get("mc20000", {}).items():
                assert near(expected, theory.beta_binomial(mean, rho, int(n)), DRAWS)
            # The file gives three digits, cut off or rounded.
            assert theory.beta_ceiling(mean, rho) == pytest.approx(row["ceiling"], abs=1e-3)


def test_c_width_in_both_orders_and_in_one(tmp_path: Path) -> None:
    def error(n: int, orders: int) -> float:
        return 0.7**2 + (1 + 1 / orders) / n

    for rows in known("C_gauss_width"):
        for n, row in rows["n"].items():
            both = theory.right(1, error(int(n), 2))
            assert both == pytest.approx(row["both_orders_exact"], abs=5.1e-5)
            assert 2 * both - 1 == pytest.approx(row["kappa_exact(balanced)=2acc-1"], abs=1.1e-4)
            assert near(row["one_order_mc(b=.8)"], theory.right(1, error(int(n), 1), 0.8), DRAWS)
        assert theory.right(1, 0.7**2) == pytest.approx(rows["ceiling_n->inf"], abs=5.1e-5)

    count = 1000
    run = judge(
        tmp_path / "r", "gap=1,sample=0.7,role=1,review=1,position=0.8", balanced(count), width=8, depth=1,
        aggregation="mean-all",
    )  # fmt: skip
    for n in (1, 2, 4, 8):
        samples = narrower(run, n)
        assert near(credit(samples, "mean-all"), theory.right(1, error(n, 2)), count), n
        one = sum(s.in_order("12", "mean-all", 0) == s.human for s in samples) / count
        assert near(one, theory.right(1, error(n, 1), 0.8), count), n
    # Kappa is 2 accuracy - 1 where both sides say 1 and 2 equally often.
    scored = score(run, draws=200)["agreement"]["scored"]
    expected = theory.right(1, error(8, 2))
    assert near((scored["kappa"]["value"] + 1) / 2, expected, count)
    assert near(scored["accuracy"]["value"], expected, count)


@pytest.mark.parametrize("bias", [0.0, 0.4, 0.8, 1.6])
def test_c_position_bias(tmp_path: Path, bias: float) -> None:
    spread, shared = 1 + 0.7**2 + 1 + 1, 1 + 0.7**2 + 1

    def consistency(b: float) -> float:
        return theory.same_sign((b, -b), ((spread, shared), (shared, spread)))

    first = float(stats.norm.cdf(bias / math.sqrt(spread)))
    for rows in known("C_position"):
        if row := rows.get(str(bias)):
            assert first == pytest.approx(row["first_pref_exact"], abs=5.1e-5)
            assert consistency(0) == pytest.approx(row["agree_exact_if_b=0"], abs=5.1e-5)
            assert near(row["agree_mc"], consistency(bias), DRAWS)
    count = 800
    run = judge(tmp_path / "r", f"gap=1,sample=0.7,role=1,review=1,position={bias}", balanced(count), width=1, depth=1)
    found = score(run, draws=200)["position"]
    assert near(found["consistency"]["value"], consistency(bias), count)
    # Two verdicts of a sample; at most as uncertain as one.
    assert near(found["first_preferred"]["value"], first, count)


def _mixing(name: str) -> tuple[theory.Mixing, bool]:
    """From a row's name, "L2 n=8 full, last layer only"."""
    depth, width = int(name[1]), int(name.split("n=")[1].split(",")[0].split()[0])
    window, herd = (2 if "win2" in name else None), (1.0 if "herd1" in name else 0.0)
    return theory.Mixing(width, depth, window=window, herd=herd), "last layer" in name


def test_d_the_closed_forms_are_those_of_the_file() -> None:
    for rows in known("D_depth"):
        for name, row in rows.items():
            mixing, last = _mixing(name)
            assert near(row["acc"], mixing.accuracy(last=last), DRAWS), name
            # A mean of n - 1 squares of a sample has a relative deviation of sqrt(2 / (n - 1)) at most, over samples.
            width = len(mixing.layers[0])
            assert row["spread_var_last_layer"] == pytest.approx(
                mixing.spread(), rel=4 * math.sqrt(2 / (width - 1) / DRAWS)
            ), name
            for layer, found in enumerate(row["err_corr_first_last_neuron_by_layer"]):
                expected = mixing.correlation(layer)
                assert abs(found - expected) < 4 * (1 - expected**2) / math.sqrt(DRAWS), (name, layer)


@pytest.mark.parametrize(
    ("width", "depth", "connection", "herd"),
    [(8, 3, "full", 0.0), (8, 2, "window:2", 0.0), (8, 2, "full", 1.0), (2, 2, "window:2", 0.0)],
)
def test_d_depth_by_mixing_gains_nothing(tmp_path: Path, width: int, depth: int, connection: str, herd: float) -> None:
    count = 200
    window = 2 if connection == "window:2" else None
    run = judge(
        tmp_path / "r", f"gap=1,sample=0.7,role=1,review=1,mix=0.5,herd={herd}", balanced(count), width=width,
        depth=depth, connection=connection, aggregation="mean-all",
    )  # fmt: skip
    for layers in range(1, depth + 1):
        mixing = theory.Mixing(width, layers, window=window, herd=herd)
        assert near(credit(run.samples, "mean-all", layers), mixing.accuracy(), count)
        assert near(credit(run.samples, "mean-last", layers), mixing.accuracy(last=True), count)
        found = differences(run, layers - 1)
        assert found.shape == (count, width)
        relative = math.sqrt(2 / (width - 1) / count)
        assert found.var(1).mean() == pytest.approx(mixing.spread(), rel=5 * relative)
        # The gap, a normal of deviation 1, is in every difference beside the error.
        expected = mixing.covariance(layers - 1) + 1
        corr = expected[0, -1] / math.sqrt(expected[0, 0] * expected[-1, -1])
        assert abs(np.corrcoef(found[:, 0], found[:, -1])[0, 1] - corr) < 4 * (1 - corr**2) / math.sqrt(count)
        # No gain: theory says so in every case, and McNemar's test finds no judge better for its depth.
        assert mixing.accuracy() <= theory.Mixing(width, 1).accuracy() + 1e-12
    shallow, deep = ([s.verdict("mean-all", 0, depth=k).winner for s in run.samples] for k in (1, depth))
    human, queries = [s.human or 0 for s in run.samples], [s.query for s in run.samples]
    versus = paired(human, shallow, deep, queries, draws=500)
    gained = versus["only_second_right"] - versus["only_first_right"]
    assert gained < 4 * math.sqrt(versus["only_second_right"] + versus["only_first_right"] + 1)


def test_e_tie_rates(tmp_path: Path) -> None:
    def local_limit(reviews: int) -> float:
        """Density of the sum at 0; rounding adds 1/12 to each variance."""
        return float(stats.norm.pdf(0, 0.5 * reviews, math.sqrt(reviews * (1.5**2 + 1 / 12))))

    for rows in known("E_tie_rate(integer diffs mean .5 sd 1.5)"):
        for n, row in rows.items():
            expected = theory.tie_rate(0.5, 1.5, 2 * int(n))
            assert near(row["tie_mc"], expected, DRAWS)
            assert local_limit(2 * int(n)) == pytest.approx(row.get("local_limit", expected), abs=4e-4)
    count = 700
    run = judge(
        tmp_path / "r", "gap=0.5,fixed=1,sample=0,role=0,review=1.5,step=1", balanced(count), width=8, depth=1,
        aggregation="mean-all",
    )  # fmt: skip
    for n in (1, 2, 4, 8):
        ties = sum(sample.verdict("mean-all", 0).winner == 0 for sample in narrower(run, n)) / count
        assert near(ties, theory.tie_rate(0.5, 1.5, 2 * n), count), n
    assert score(run, draws=100)["winners"]["0"] == ties * count


def test_g_error_bars(tmp_path: Path) -> None:
    """Bootstrap intervals of a run are as wide as the formulas say."""

    def accuracy_se(p: float, n: int) -> float:
        return math.sqrt(p * (1 - p) / n)

    def kappa_se(agree: float, chance: float, n: int) -> float:
        return math.sqrt(agree * (1 - agree) / n) / (1 - chance)

    for row in known("G_se"):
        assert accuracy_se(0.75, 200) == pytest.approx(row["acc_se_n200_p.75"], abs=5.1e-5)
        assert accuracy_se(0.6, 2553) == pytest.approx(row["acc_se_n2553_p.6"], abs=5.1e-5)
        assert kappa_se(0.57, 0.36, 2553) == pytest.approx(row["kappa_se_n2553_approx(po=.57,pe=.36)"], abs=5.1e-5)

    def half(figure: dict[str, Any]) -> float:
        return float(figure["high"] - figure["low"]) / 2 / 1.959964

    # Labels as on LLMEval^2; a judge that ties at times, whether people do or not.
    labels = [1] * 1050 + [2] * 1021 + [0] * 482
    run = judge(
        tmp_path / "r", "gap=1,fixed=1,sample=0,role=0,review=1.5,step=1", labels, width=1, depth=1, both_orders=False
    )
    found = agreement(run.samples)["scored"]
    accuracy = found["accuracy"]
    assert accuracy["n"] == 2553
    assert half(accuracy) == pytest.approx(accuracy_se(accuracy["value"], 2553), rel=0.05)
    human = np.array(labels)
    said = np.array([sample.winner for sample in sorted(run.samples, key=lambda s: int(s.id[1:]))])
    chance = sum((human == k).mean() * (said == k).mean() for k in (0, 1, 2))
    kappa = found["kappa"]
    assert kappa["value"] == pytest.approx((accuracy["value"] - chance) / (1 - chance))
    assert half(kappa) == pytest.approx(kappa_se(accuracy["value"], chance, 2553), rel=0.1)
    few = agreement([sample for sample in run.samples if int(sample.id[1:]) < 200])["scored"]["accuracy"]
    assert half(few) == pytest.approx(accuracy_se(few["value"], 200), rel=0.06)
    # Right where the difference, a normal around the gap, rounds to 1 or more.
    assert near(few["value"], float(stats.norm.sf(0.5, 1, 1.5)), 200)


@cache
def _persuasion(name: str) -> theory.Persuasion:
    """From a row's name, "p=0.6,a=0.4,c=0.2,n=8,win=2"."""
    p, a, c, n, window = (part.partition("=")[2] for part in name.split(","))
    return theory.Persuasion(float(p), float(a), float(c), int(n), None if window == "None" else int(window))


def test_h_the_closed_forms_are_those_of_the_file() -> None:
    for rows in known("H_persuasion_depth"):
        for name, row in rows.items():
            exact = _persuasion(name)
            assert exact.neuron == pytest.approx(row["layer2_neuron_acc_exact"], abs=5.1e-5), name
            assert near(row["majority_layer1"], exact.layer1, DRAWS), name
            assert near(row["majority_layer2_mc"], exact.layer2, DRAWS), name
            assert near(row["majority_both_layers_mc"], exact.both, DRAWS), name


@pytest.mark.parametrize(
    ("name", "helps"),
    [
        ("p=0.6,a=0.4,c=0.2,n=8,win=2", True),
        ("p=0.6,a=0.4,c=0.2,n=8,win=None", True),
        ("p=0.7,a=0.2,c=0.2,n=8,win=None", False),
        ("p=0.45,a=0.2,c=0.3,n=8,win=2", False),
    ],
)
def test_h_depth_by_persuasion(tmp_path: Path, name: str, helps: bool) -> None:
    count = 400
    p, a, c, n, window = (part.partition("=")[2] for part in name.split(","))
    run = judge(
        tmp_path / "r", f"skill={p},role=0,persuaded={a},misled={c}", balanced(count), width=int(n), depth=2,
        connection="full" if window == "None" else f"window:{window}", both_orders=False, aggregation="vote-last",
    )  # fmt: skip
    exact = _persuasion(name)
    assert (exact.layer2 > exact.layer1) == (exact.both > exact.layer1) == helps
    assert near(credit(run.samples, "vote-all", 1), exact.layer1, count)
    assert near(credit(run.samples, "vote-last"), exact.layer2, count)
    assert near(credit(run.samples, "vote-all"), exact.both, count)
    by_sample = ((differences(run, 1) > 0) == np.array([[s.human == 1] for s in run.samples])).mean(1)
    assert abs(by_sample.mean() - exact.neuron) < 4 * by_sample.std() / math.sqrt(count)


def test_h_who_is_persuaded_is_exactly_who_sees_a_right_review(tmp_path: Path) -> None:
    """With certain persuasion the second layer follows from the first, neuron by neuron."""
    run = judge(
        tmp_path / "r", "skill=0.5,role=0,persuaded=1", balanced(100), width=6, depth=2, connection="window:2",
        both_orders=False, aggregation="vote-last",
    )  # fmt: skip
    sign = np.array([[1 if s.human == 1 else -1] for s in run.samples])
    before, after = (differences(run, layer) * sign > 0 for layer in (0, 1))
    seen = np.pad(before, ((0, 0), (1, 1)))
    expected = before | seen[:, :-2] | seen[:, 2:]
    assert (after == expected).all()
    assert 0 < before.mean() < expected.mean() < 1
