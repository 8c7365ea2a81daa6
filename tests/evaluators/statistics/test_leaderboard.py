"""Rankings of systems: figures against slow ones, and the command on runs and files."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import t

from evaluators.errors import RunError
from evaluators.statistics.bootstrap import cluster_sums, resampled
from evaluators.statistics.leaderboard import Game, bradley_terry, leaderboard
from tests.evaluators.conftest import Done
from tests.evaluators.formats import FORMATS

TRUE = {"strong": 1.0, "middle": 0.0, "weak": -1.0}


def games(count: int, seed: int) -> list[Game]:
    """Drawn from the Bradley-Terry model, a tenth of them tied, a few unscored."""
    random = np.random.default_rng(seed)
    found: list[Game] = []
    for _ in range(count):
        one, other = random.permutation(list(TRUE))[:2]
        first = random.random() < 1 / (1 + np.exp(TRUE[other] - TRUE[one]))
        kind = random.random()
        found.append((str(one), str(other), None if kind < 0.05 else 0 if kind < 0.15 else 1 if first else 2))
    return found


def slow_strengths(wins: np.ndarray) -> np.ndarray:
    """By a general minimiser of the negative log-likelihood."""

    def loss(s: np.ndarray) -> float:
        return float((wins * np.log1p(np.exp(s[None, :] - s[:, None]))).sum() + s.mean() ** 2)

    found = minimize(loss, np.zeros(len(wins)), tol=1e-12).x
    return np.asarray(found - found.mean())


def test_counts_strengths_and_intervals_are_those_of_slow_loops() -> None:
    played, draws = games(300, 0), 200
    queries = [f"q{number // 3}" for number in range(len(played))]
    standings = {item.system: item for item in leaderboard(played, queries, draws=draws, seed=4)}
    names = sorted(standings)
    tables = []
    for one, other, winner in played:
        table = np.zeros((3, 3))
        if winner is not None:
            share = {1: 1.0, 2: 0.0, 0: 0.5}[winner]
            table[names.index(one), names.index(other)] += share
            table[names.index(other), names.index(one)] += 1 - share
        tables.append(table)
    expected = slow_strengths(np.sum(tables, 0))
    scored = [(table.ravel(), query) for table, query in zip(tables, queries, strict=True) if table.any()]
    sums = cluster_sums(np.array([table for table, _ in scored]), [query for _, query in scored])
    drawn = np.array([slow_strengths(row.reshape(3, 3)) for row in resampled(sums, draws=draws, seed=4)])
    for at, name in enumerate(names):
        item = standings[name]
        own = [(winner, one == name) for one, other, winner in played if name in (one, other) and winner is not None]
        wins = sum(winner == (1 if first else 2) for winner, first in own)
        ties = sum(winner == 0 for winner, _ in own)
        assert (item.games, item.wins, item.ties, item.losses) == (len(own), wins, ties, len(own) - wins - ties)
        assert item.win_rate == pytest.approx((wins + ties / 2) / len(own))
        assert item.strength == pytest.approx(expected[at], abs=1e-4)
        assert item.strength_interval is not None and item.win_rate_interval.low is not None
        half = t.ppf(0.975, len(sums) - 1) * drawn[:, at].std(ddof=0) * (len(sums) / (len(sums) - 1)) ** 0.5
        ends = (item.strength_interval.low, item.strength_interval.high)
        assert ends == pytest.approx((expected[at] - half, expected[at] + half), abs=1e-3)
        assert item.win_rate_interval.low < item.win_rate < item.win_rate_interval.high
    assert [item.system for item in leaderboard(played)] == ["strong", "middle", "weak"]


def test_bradley_terry_finds_the_maximum_of_the_likelihood() -> None:
    """Against scipy's minimiser, closed forms where few games join what many have apart, and where there is none."""
    random = np.random.default_rng(5)
    wins = random.integers(1, 20, (5, 5)).astype(float)
    np.fill_diagonal(wins, 0)
    assert bradley_terry(wins) == pytest.approx(slow_strengths(wins), abs=1e-4)
    for inside in (100, 10_000, 1_000_000):
        far = np.zeros((4, 4))
        far[0, 1] = far[1, 0] = far[2, 3] = far[3, 2] = inside
        far[1, 2], far[2, 1] = 3, 1
        half = np.log(3) / 2
        assert bradley_terry(far) == pytest.approx([half, half, -half, -half], abs=1e-6)
    strong = np.array([[0.0, 999_999.0], [1.0, 0.0]])
    assert bradley_terry(strong) == pytest.approx(np.array([0.5, -0.5]) * np.log(999_999), abs=1e-6)
    assert bradley_terry(np.array([[0.0, 3.0], [0.0, 0.0]])) is None
    assert bradley_terry(np.array([[0.0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]])) is None
    played: list[Game] = [("a", "b", 1), ("b", "a", 1), ("b", "c", 0), ("a", "c", None)]
    assert [(item.system, item.win_rate) for item in leaderboard(played)] == [("a", 0.5), ("b", 0.5), ("c", 0.5)]
    with pytest.raises(RunError, match="no comparison"):
        leaderboard([("a", "b", None)])
    with pytest.raises(RunError, match="with itself"):
        leaderboard([("a", "a", 1)])


def test_a_system_of_few_games_among_many_has_an_interval_or_the_reason() -> None:
    played = games(400, 3)
    played += [("new", "middle", 1), ("weak", "new", 2), ("new", "strong", 2), ("new", "weak", 1)]
    new = next(item for item in leaderboard(played, draws=300) if item.system == "new")
    assert new.strength is not None and new.strength_interval is not None
    assert new.strength_interval.low is None and "not defined in" in (new.strength_interval.why or "")
    assert new.win_rate_interval.why == "4 queries, and an interval takes 10"


def test_fifty_thousand_games_of_sixty_systems_are_kept_sparse() -> None:
    """Games x systems^2 numbers would be 1.4 GB."""
    random = np.random.default_rng(0)
    true = np.linspace(-1.5, 1.5, 60)
    pairs = np.array([random.choice(60, 2, replace=False) for _ in range(2000)])[random.integers(0, 2000, 50_000)]
    first = random.random(50_000) < 1 / (1 + np.exp(true[pairs[:, 1]] - true[pairs[:, 0]]))
    played: list[Game] = [
        (f"s{a:02}", f"s{b:02}", 1 if won else 2) for (a, b), won in zip(pairs.tolist(), first, strict=True)
    ]
    tracemalloc.start()
    standings = leaderboard(played, [at // 10 for at in range(50_000)], draws=20)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 300e6
    found = {item.system: item for item in standings}
    errors = [abs((found[f"s{at:02}"].strength or 0) - true[at]) for at in range(60)]
    assert max(errors) < 0.35


def test_repeating_every_game_within_its_query_narrows_nothing() -> None:
    played = games(120, 1)
    queries = [f"q{number}" for number in range(len(played))]

    def width(games: list[Game], clusters: list[str] | None) -> float:
        (best, *_) = leaderboard(games, clusters, draws=1000)
        assert best.win_rate_interval.low is not None and best.win_rate_interval.high is not None
        return best.win_rate_interval.high - best.win_rate_interval.low

    assert width(played * 9, queries * 9) == pytest.approx(width(played, queries))
    assert width(played * 9, None) < width(played, queries) / 2


def test_groups_that_never_lost_have_no_finite_strength() -> None:
    best, last = leaderboard([("a", "b", 1), ("a", "b", 1), ("b", "a", 2)], draws=200)
    assert (best.system, best.win_rate, best.strength, best.strength_interval) == ("a", 1.0, None, None)
    assert (last.wins, last.losses) == (0, 3)
    single = leaderboard([("a", "b", 0)], draws=200)
    assert [item.strength for item in single] == [0.0, 0.0] and single[0].win_rate_interval.low is None
    assert single[0].win_rate_interval.why == "1 query, and an interval takes 10"


def test_the_command_ranks_by_the_judge_and_by_people(judge: Callable[..., Done], tmp_path: Path) -> None:
    lines = [
        {"query": f"q{n // 2}", "response1": f"x{n}", "response2": f"y{n}", "human": 1 + n % 2}
        | {"model_a": "m" if n % 2 == 0 else "n", "model_b": "n" if n % 2 == 0 else "m"}
        for n in range(60)
    ]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, lines)))
    run = ("run", "--data", "p.jsonl", "--judge", "simulated:gap=2", "--depth", 1)
    named = ("--fields", "system1=model_a", "system2=model_b")
    assert judge(*run, *named, "--out", "r").returncode == 0
    done = judge("leaderboard", "r", "--json", "--draws", 300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    records = [json.loads(line) for line in (tmp_path / "r" / "verdicts.jsonl").read_text().splitlines()]
    assert {(record["system1"], record["system2"]) for record in records} == {("m", "n"), ("n", "m")}
    wins = sum((record["verdict"]["winner"] == 1) == (record["system1"] == "m") for record in records)
    (best, _) = found["standings"]
    assert (best["system"], best["wins"], found["comparisons"], found["queries"]) == ("m", wins, 60, 30)
    assert best["strength"] == pytest.approx(np.log(wins / (60 - wins)) / 2)
    done = judge("leaderboard", "r", "--by", "people", "--draws", 300)
    assert done.returncode == 0 and "not finite" in done.stdout and "1 m " in done.stdout, done.stdout
    hostile = {"query": "q", "response1": "a", "response2": "b", "human": 0, "system1": "\x1b[31mred", "system2": "n"}
    (tmp_path / "hostile.jsonl").write_text(json.dumps(hostile))
    done = judge("leaderboard", "--data", "hostile.jsonl", "--draws", 100)
    assert done.returncode == 0 and "\ufffd[31mred" in done.stdout and "\x1b" not in done.stdout
    assert judge(*run, "--out", "unnamed").returncode == 0
    (tmp_path / "f").mkdir()
    mt_bench = FORMATS["mt-bench"]
    mt_bench.write(tmp_path / "f", mt_bench.rows)
    done = judge("leaderboard", "--data", "f/data.jsonl", "--format", "mt-bench", "--draws", 300)
    assert done.returncode == 0 and "3 comparisons of 2 queries, 1 of them ties" in done.stdout, done.stderr
    for words, told in (
        (("unnamed",), "RUN unnamed: verdicts.jsonl: sample 'line-000001' does not name its systems"),
        (("--data", "p.jsonl"), "--data p.jsonl: line 1: does not name its systems in the fields system1 and system2"),
        (("--data", "p.jsonl", "--format", "mtbench"), "did you mean mt-bench?"),
        (("r", "--data", "p.jsonl"), "name the folders of runs, or a file"),
        ((), "name the folders of runs, or a file"),
        (("nowhere",), "RUN nowhere: holds no verdicts.jsonl"),
        (("r", "--draws", 5), "--draws 5: must be at least 100"),
    ):
        done = judge("leaderboard", *words)
        assert done.returncode in (1, 2) and told in done.stderr and "Traceback" not in done.stderr, done.stderr
