"""Calibration reports on what it has not seen; power against simulation and closed forms."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from evaluators.judges.simulated import Population
from evaluators.running.judged import read_run
from evaluators.statistics.calibration import split
from evaluators.statistics.planning import (
    expected_accuracy,
)
from evaluators.statistics.reliability import abstain
from tests.evaluators.conftest import Done

# Both orders, depth 1, n neurons; closed forms of simulation_expectations.json, C_gauss_width.
WIDTHS = {1: 0.6963, 2: 0.7329, 4: 0.7615, 8: 0.7808, 16: 0.7923}


def test_expected_accuracy_is_the_closed_form_and_the_pipeline_has_it(
    judge: Callable[..., Done], tmp_path: Path
) -> None:
    assert {n: expected_accuracy(Population(), n) for n in WIDTHS} == pytest.approx(WIDTHS, abs=5e-5)
    lines = [
        {"query": f"q{n // 2}", "response1": f"a{n}", "response2": f"b{n}", "human": 1 + n % 2} for n in range(2000)
    ]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, lines)))
    flags = ("--depth", 1, "--roles", "A", "B")
    done = judge("run", "--data", "p.jsonl", "--judge", "simulated:position=0.8", *flags, "--out", "r")
    assert done.returncode == 0, done.stderr
    done = judge("metrics", "r", "--json", "--draws", 500)
    found = json.loads(done.stdout)
    accuracy = found["agreement"]["scored"]["accuracy"]
    assert accuracy["value"] == pytest.approx(WIDTHS[2], abs=4 * (0.73 * 0.27 / 2000) ** 0.5)
    assert accuracy["low"] < accuracy["value"] < accuracy["high"]
    assert found["position"]["first_preferred"]["value"] > 0.6
    done = judge("calibrate", "r", "--draws", 200)
    assert done.returncode == 0, done.stderr
    chosen = json.loads((tmp_path / "r" / "calibration.json").read_text())
    assert chosen["tuned_on"] + chosen["held_out"] == 2000
    assert chosen["after"]["scored"]["accuracy"]["n"] == chosen["held_out"]
    assert chosen["weights"]["against_unweighted"]["samples"] == chosen["held_out"]
    html = (tmp_path / "r" / "calibration.html").read_text()
    assert html.count("<svg") == 2
    # The chosen setting against the run's own, on the same held-out samples; and of how many it is the best.
    against = chosen["against_before"]
    before, after = (chosen[part]["unscored_as_wrong"] for part in ("before", "after"))
    for name in ("accuracy", "kappa"):
        assert against["difference"][name]["difference"] == pytest.approx(after[name]["value"] - before[name]["value"])
        assert (against["difference"][name]["low"] is None) == (against["difference"][name]["why"] is not None)
    assert against["samples"] == chosen["held_out"] and 0 <= against["mcnemar_p"] <= 1
    told = f"the best of {chosen['settings_tried']:,} settings"
    assert "after - before: accuracy" in done.stdout and told in done.stdout and told in html
    run = read_run(tmp_path / "r")
    tune, held = split(run.labelled, 0.5, 0)
    assert not {sample.query for sample in tune} & {sample.query for sample in held}
    curve = abstain(held)
    assert curve[-1]["coverage"] == 1 and curve[len(curve) // 10]["accuracy"] > curve[-1]["accuracy"]


def test_impossible_plans_are_refused(judge: Callable[..., Done]) -> None:
    assert judge("power", "--accuracies", 0.7, 0.75).returncode == 0
    assert judge("power", "--population", "gap=1", "--widths", 2, 8).returncode == 0
    for words, told in (
        ((), "0 given"),
        (("--accuracies", 0.7, 1.2), "--accuracies 1.2"),
        (("--population", "x"), "x"),
    ):
        done = judge("power", *words)
        assert done.returncode == 2 and told in done.stderr and "Traceback" not in done.stderr
