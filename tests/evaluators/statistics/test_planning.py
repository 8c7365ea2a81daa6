"""Power against all outcomes, one by one, and the number of samples against every smaller and larger one."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import chi2

from evaluators.errors import ConfigError
from evaluators.judges.simulated import Population
from evaluators.statistics.planning import Discordant, discordant, error_correlation, rejections, samples_needed
from tests.evaluators.conftest import Done


def slow(shares: Discordant, n: int, level: float) -> tuple[float, float]:
    """Multinomial chances of every (b, c) whose (b - c)^2 / (b + c) is beyond chi-squared's quantile."""
    rest, right, wrong = 1 - shares.only_first - shares.only_second, 0.0, 0.0
    for b in range(n + 1):
        for c in range(n + 1 - b):
            if b + c and (b - c) ** 2 / (b + c) >= chi2.isf(level, 1):
                chance = math.comb(n, b) * math.comb(n - b, c)
                chance *= shares.only_first**b * shares.only_second**c * rest ** (n - b - c)
                better = (c > b) == (shares.only_second > shares.only_first)
                right, wrong = right + better * chance, wrong + (not better) * chance
    return right, wrong


SHARES = [(0.1, 0.2), (0.2, 0.05), (0.0, 0.3), (0.4, 0.6), (0.5, 0.45), (0.3, 0.3), (0.0, 0.01)]


@pytest.mark.parametrize("shares", SHARES)
@pytest.mark.parametrize("level", [0.05, 0.001])
def test_chances_are_the_sums_over_all_outcomes(shares: tuple[float, float], level: float) -> None:
    for n in (1, 5, 17, 40):
        found = rejections(Discordant(*shares), n, level=level)
        assert (found.right, found.wrong) == pytest.approx(slow(Discordant(*shares), n, level), abs=1e-9)


def test_rejections_in_favour_of_the_worse_judge_are_no_power() -> None:
    """All but equal judges: both directions are as likely, and their sum is near the level."""
    found = rejections(Discordant(0.2, 0.2001), 200)
    assert found.right == pytest.approx(found.wrong, rel=0.05)
    assert 0.04 < found.right + found.wrong < 0.06


@pytest.mark.parametrize(
    ("shares", "wanted"),
    [
        ((0.1, 0.2), 0.8), ((0.0, 0.3), 0.8), ((0.4, 0.6), 0.8), ((0.35, 0.65), 0.5), ((0.45, 0.55), 0.3),
        ((0.0, 0.02), 0.9),
    ],
)  # fmt: skip
def test_from_the_needed_number_on_power_is_never_below(shares: tuple[float, float], wanted: float) -> None:
    needed = samples_needed(Discordant(*shares), wanted=wanted)
    below = [n for n in range(1, 4 * needed) if rejections(Discordant(*shares), n).right < wanted]
    assert needed == max(below) + 1


def test_impossible_judges_are_refused_and_nested_errors_leave_no_negative_share() -> None:
    with pytest.raises(ConfigError, match="equally good"):
        samples_needed(Discordant(0.1, 0.1))
    with pytest.raises(ConfigError, match="can have errors correlated from"):
        discordant(0.6, 0.9, 0.95)
    first, second = 0.7, 0.75
    highest = (first - first * second) / math.sqrt(first * (1 - first) * second * (1 - second))
    shares = discordant(first, second, highest)
    assert shares.only_first == 0 and shares.only_second == pytest.approx(0.05)
    assert 0.4 < error_correlation(Population(), (2, 8)) < 0.9


def _run(judge: Callable[..., Done], folder: Path, name: str, winners: list[int]) -> None:
    """A run whose judge says so, of samples that people call 1, two to a query."""
    script = [
        {"id": f"s{at}", "reply": f"Score of Assistant 1: {8 if winner == 1 else 4}\nScore of Assistant 2: 6"}
        for at, winner in enumerate(winners)
    ]
    (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, script)))
    lines = [
        {"id": f"s{at}", "query": f"q{at // 2}", "response1": f"a{at}", "response2": f"b{at}", "human": 1}
        for at in range(len(winners))
    ]
    (folder / "p.jsonl").write_text("\n".join(map(json.dumps, lines)))
    flags = ("--preset", "single", "--no-cache", "--out", name)
    done = judge("run", "--data", "p.jsonl", "--judge", f"scripted:{name}.jsonl", *flags)
    assert done.returncode == 0, done.stderr


def test_a_pilot_is_measured_and_one_without_information_says_so(judge: Callable[..., Done], tmp_path: Path) -> None:
    right, random = [1] * 60, np.random.default_rng(0)
    some = [int(winner) for winner in np.repeat(random.choice([1, 2], 30, p=[0.6, 0.4]), 2)]
    _run(judge, tmp_path, "right", right)
    _run(judge, tmp_path, "some", some)
    done = judge("power", "--pilot", "some", "right")
    assert done.returncode == 0, done.stderr
    # Errors of a query are shared: twice as many samples as if each had a query of its own.
    lines = done.stdout.splitlines()
    needed = int(next(line for line in lines if line.startswith("needed")).split()[1].replace(",", ""))
    again = next(line for line in lines if "design effect" in line)
    assert "nan" not in done.stdout and "-0.00" not in done.stdout and "only the first right 0.00%" in done.stdout
    assert needed == samples_needed(Discordant(0.0, some.count(2) / 60))
    assert int(again.split()[0].replace(",", "")) == pytest.approx(2 * needed, rel=0.08)
    done = judge("power", "--pilot", "some", "some")
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1
    assert "--pilot some some: of 60 samples, the first alone has 0 right and the second as many" in done.stderr
