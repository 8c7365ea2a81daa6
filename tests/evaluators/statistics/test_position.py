"""Position bias of the judge is that of layer 1, at any depth, and closed forms say what it is."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from evaluators.network import Network
from evaluators.running.judged import read_run
from evaluators.statistics.position import ONE_ORDER, position
from evaluators.statistics.runs import JudgedRun, Sample
from evaluators.values import Failure, Review
from tests.evaluators.closed_forms import same_sign
from tests.evaluators.conftest import Done
from tests.evaluators.simulated_runs import balanced, judge

COUNT = 600
WIDTH = 4


def expected(bias: float) -> tuple[float, float]:
    """Same verdict in both orders, and share of verdicts for what is shown first, of the mean of four neurons.

    The mean differences of the orders are normal with means +-bias; gap 1, sample 0.7 and role 1 are in both, review 1
    in each.
    """
    shared = 1 + 0.7**2 + 1 / WIDTH
    whole = shared + 1 / WIDTH
    agree = same_sign((bias, -bias), ((whole, shared), (shared, whole)))
    return agree, float(stats.norm.cdf(bias / math.sqrt(whole)))


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_depth_hides_nothing_of_the_judges_bias(depth: int, tmp_path: Path) -> None:
    run = judge(tmp_path / "r", "position=1.6", balanced(COUNT), width=WIDTH, depth=depth)
    found = position(run)
    agree, first = expected(1.6)
    assert found["consistency"]["value"] == pytest.approx(agree, abs=4 * math.sqrt(agree * (1 - agree) / COUNT))
    assert found["first_preferred"]["value"] == pytest.approx(first, abs=4 * math.sqrt(0.25 / COUNT))
    assert found["layers"]["1"]["consistency"] == found["consistency"]
    network = found["network"]
    if depth == 1:
        assert network["consistency"] == found["consistency"]
    else:
        for layer in range(2, depth + 1):
            for figure in found["layers"][str(layer)].values():
                assert figure["value"] is None and f"layer {layer} have read those of both orders" in figure["why"]
        assert network["consistency"]["value"] is None and network["consistency"]["why"]
    # Both orders weigh the same in the verdict, so it prefers neither response more than people do.
    assert network["difference"]["low"] <= 0 <= network["difference"]["high"]
    assert network["people_name_response1"]["value"] == pytest.approx(0.5, abs=0.03)


def test_a_network_of_one_order_shows_its_bias_beside_people(tmp_path: Path) -> None:
    run = judge(tmp_path / "r", "position=1.6", balanced(COUNT), width=1, depth=1, both_orders=False)
    found = position(run)
    assert found["consistency"]["value"] is None and found["consistency"]["why"] == ONE_ORDER
    assert found["first_preferred"]["value"] is None and found["network"]["first_preferred"]["why"] == ONE_ORDER
    first = float(stats.norm.cdf(1.6 / math.sqrt(1 + 0.7**2 + 1 + 1)))
    network = found["network"]
    assert network["names_response1"]["value"] == pytest.approx(first, abs=4 * math.sqrt(0.25 / COUNT))
    assert network["difference"]["low"] > 0.15


def _sample(at: int, items: list[Review | Failure], human: int = 1, winner: int | None = 1) -> Sample:
    return Sample(f"s{at}", "", f"q{at}", "QA", "", human, winner, None, None, (1, 1), (tuple(items),))


def _review(order: Any, winner: int) -> Review:
    return Review(1, 1, order, 0, "", {1: (8.0, 2.0), 2: (2.0, 8.0), 0: (5.0, 5.0)}[winner], "")


def _failure(order: Any) -> Failure:
    return Failure(1, 1, order, 0, "unparsed", "it said nothing")


def _run(samples: list[Sample]) -> JudgedRun:
    return JudgedRun(Path("r"), Network(depth=1, roles=()), tuple(samples), 0)


def test_a_judge_that_never_answers_agrees_with_nothing() -> None:
    silent = [_sample(at, [_failure("12"), _failure("21")], winner=None) for at in range(20)]
    found = position(_run(silent))
    assert found["consistency"] | {"why": ""} == {
        "value": None, "low": None, "high": None, "n": 0, "clusters": 0, "why": ""
    }  # fmt: skip
    assert found["unscored"] == 20 and found["order12"] == {"unscored": 20}
    half = [_sample(at, [_review("12", 1), _review("21", 1)]) for at in range(15)]
    half += [_sample(20 + at, [_review("12", 1), _failure("21")], winner=None) for at in range(5)]
    found = position(_run(half))
    assert (found["consistency"]["value"], found["consistency"]["n"], found["unscored"]) == (1.0, 15, 5)
    assert (found["first_preferred"]["value"], found["first_preferred"]["n"]) == (20 / 35, 35)


def test_where_the_orders_contradict_each_other_the_verdict_is_looked_at_alone() -> None:
    same = [_sample(at, [_review("12", 1), _review("21", 1)]) for at in range(10)]
    apart = [_sample(10 + at, [_review("12", 1), _review("21", 2)], winner=1 if at < 9 else 2) for at in range(12)]
    found = position(_run(same + apart))["network"]["right_where_orders_differ"]
    assert (found["value"], found["n"], found["clusters"]) == (9 / 12, 12, 12)


def test_the_command_and_the_report_tell_judge_and_network_apart(judge: Callable[..., Done], tmp_path: Path) -> None:
    lines = [{"query": f"q{n}", "response1": f"a{n}", "response2": f"b{n}", "human": 1 + n % 2} for n in range(60)]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, lines)))
    done = judge("run", "--data", "p.jsonl", "--judge", "simulated:position=1.6", "--out", "r")
    assert done.returncode == 0, done.stderr
    done = judge("metrics", "r", "--draws", 200)
    assert "position    the judge, in layer 1: same verdict in both orders 0." in done.stdout
    assert "the network: no verdict of one order, the reviews of layer 2 have read those of both orders" in done.stdout
    assert judge("report", "r", "--draws", 200).returncode == 0
    html = (tmp_path / "r" / "report.html").read_text()
    assert "The judge" in html and "The network" in html and "have read those of both orders" in html


def test_statistics_read_the_network_that_is_stored_and_not_todays_preset(
    judge: Callable[..., Done], tmp_path: Path
) -> None:
    lines = [{"query": f"q{n}", "response1": f"a{n}", "response2": f"b{n}", "human": 1} for n in range(12)]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, lines)))
    words = ("--data", "p.jsonl", "--judge", "simulated:gap=1", "--depth", 1, "--tie-margin", 0.7)
    assert judge("run", *words, "--out", "r").returncode == 0
    verdicts, config = tmp_path / "r" / "verdicts.jsonl", tmp_path / "r" / "config.yaml"
    records = [json.loads(line) for line in verdicts.read_text().splitlines()]
    stored = records[0]["run"]["network"]
    assert stored["preset"] == "widedeep" and stored["class"] == "evaluators.network.Network"
    assert (stored["tie_margin"], stored["aggregation"], stored["depth"]) == (0.7, "mean-all", 1)
    # The preset changes after the run.
    config.write_text(config.read_text().replace("preset: widedeep", "preset: panel"))
    run = read_run(tmp_path / "r")
    assert run.network == replace(Network(), depth=1, tie_margin=0.7) and run.guessed is None
    # A run of an earlier version does not say; the preset stands in, and that is told.
    for record in records:
        del record["run"]["network"]
    verdicts.write_text("".join(json.dumps(record) + "\n" for record in records))
    run = read_run(tmp_path / "r")
    assert run.guessed == "panel" and run.aggregation == "vote-all"
    done = judge("metrics", "r", "--draws", 200)
    assert "network     not stored with this run: the preset panel, as it is today" in done.stdout
    # Verdicts of two networks have no figures in common.
    records[0]["run"]["network"] = stored
    verdicts.write_text("".join(json.dumps(record) + "\n" for record in records))
    done = judge("metrics", "r")
    assert done.returncode == 1 and "RUN r: holds verdicts of 2 networks" in done.stderr
