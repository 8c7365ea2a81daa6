"""Weights of reviews: fitted as a slow formula fits them, on the tuning part alone, and shown as they are."""

from __future__ import annotations

import dataclasses
import json
import re
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize

from evaluators.aggregation import aggregate
from evaluators.errors import RunError
from evaluators.network import Network
from evaluators.showing.report.calibration import page
from evaluators.statistics.calibration import calibrate, split
from evaluators.statistics.runs import JudgedRun, Sample
from evaluators.statistics.weights import Weights
from evaluators.values import Review

RIGHT = {"good": 0.9, "poor": 0.55, "<script>alert(1)</script>": 0.55}


def judged(count: int, seed: int = 0) -> JudgedRun:
    """Three neurons of one layer, each right as often as its role says; a stated confidence that tells nothing."""
    random = np.random.default_rng(seed)
    samples = []
    for number in range(count):
        human = int(random.integers(1, 3))
        reviews = []
        for neuron, (role, right) in enumerate(RIGHT.items(), start=1):
            vote = human if random.random() < right else 3 - human
            scores = (7.0, 4.0) if vote == 1 else (4.0, 7.0)
            reviews.append(Review(1, neuron, "12", 0, role, scores, "", confidence=float(random.integers(1, 11))))
        verdict = aggregate([reviews], "mean-all", 0.0)
        samples.append(
            Sample(
                f"s{number}", "", f"q{number // 2}", "QA", "", human, verdict.winner, verdict.margin, None, (1, 1),
                (tuple(reviews),),
            )
        )  # fmt: skip
    return JudgedRun(Path("r"), Network(), tuple(samples), 0)


def test_log_odds_are_those_that_minimise_the_penalised_loss() -> None:
    run = judged(400)
    weights = Weights(run.samples)
    reviews = [(item, sample.human) for sample in run.samples for layer in sample.layers for item in layer]
    stated = np.array([review.confidence for review, _ in reviews])
    roles = list(RIGHT)
    rows = np.array([[1.0, *(review.role == role for role in roles)] for review, _ in reviews])
    rows = np.column_stack([rows, (stated - stated.mean()) / stated.std()])
    right = np.array([(review.scores[0] > review.scores[1]) == (human == 1) for review, human in reviews])

    def loss(c: np.ndarray) -> float:
        # The intercept is free; the penalty is |w|^2 / 2.
        odds = c[0] + rows @ c[1:]
        return float(np.logaddexp(0, np.where(right, -odds, odds)).sum() + (c[1:] ** 2).sum() / 2)

    expected = minimize(loss, np.zeros(6), tol=1e-10).x
    names = ["intercept", "layer 1", *(f"role {role}" for role in roles), "confidence"]
    assert [weights.log_odds[name] for name in names] == pytest.approx(expected.tolist(), abs=2e-3)
    found = weights.apply(run.samples[0]).layers[0]
    odds = expected[0] + rows[:3] @ expected[1:]
    assert [item.confidence for item in found if isinstance(item, Review)] == pytest.approx(
        np.maximum(odds, 0).tolist(), abs=5e-3
    )


def test_weights_help_where_one_neuron_is_better_and_the_held_out_part_is_never_fitted() -> None:
    run = judged(1200)
    found = calibrate(run, share=0.5, seed=0, draws=200)
    weights = found["weights"]
    # The good neuron alone is right 0.9 of the time; a majority of the three: 0.9 (1 - 0.45^2) + 0.1 * 0.55^2 = 0.748.
    n = found["held_out"]
    for name, expected in (("held_out", 0.9), ("unweighted_held_out", 0.748)):
        value = weights[name]["scored"]["accuracy"]["value"]
        assert value == pytest.approx(expected, abs=4 * (expected * (1 - expected) / n) ** 0.5)
    assert weights["against_unweighted"]["difference"]["accuracy"]["low"] > 0
    tune, held = split(run.labelled, 0.5, 0)
    other = {sample.id for sample in held}
    lied = dataclasses.replace(
        run,
        samples=tuple(
            dataclasses.replace(sample, human=3 - (sample.human or 0)) if sample.id in other else sample
            for sample in run.samples
        ),
    )
    again = calibrate(lied, share=0.5, seed=0, draws=200)
    assert again["chosen"] == found["chosen"] and again["settings_tried"] == found["settings_tried"]
    for name in ("log_odds", "chosen", "unweighted", "reviews"):
        assert again["weights"][name] == weights[name]
    assert again["after"] != found["after"] and len(tune) + n == 1200


def test_nothing_to_fit_is_said() -> None:
    run = judged(60)

    def changed(**fields: object) -> list[Sample]:
        return [
            dataclasses.replace(
                sample,
                layers=tuple(tuple(dataclasses.replace(item, **fields) for item in layer) for layer in sample.layers),
            )
            for sample in run.samples
        ]

    with pytest.raises(RunError, match="one layer and one role"):
        Weights(changed(role="same", confidence=None))
    right = [dataclasses.replace(sample, human=1) for sample in changed(scores=(9.0, 1.0))]
    with pytest.raises(RunError, match="of 180 reviews that name a winner, all are right"):
        Weights(right)
    with pytest.raises(RunError, match="of 0 reviews"):
        Weights(changed(scores=(5.0, 5.0)))
    alike = dataclasses.replace(run, samples=tuple(changed(role="same", confidence=None)))
    found = calibrate(alike, share=0.5, seed=0, draws=200)
    assert "one layer and one role" in found["weights"]["not_fitted"]
    assert "None fitted: all reviews are of one layer" in page("r", found)


def test_reviews_of_no_weight_give_no_verdict_rather_than_a_number() -> None:
    reviews = [Review(1, 1, order, 0, "a", (7.0, 4.0), "", confidence=0.0) for order in ("12", "21")]
    verdict = aggregate([reviews], "confidence-all", 0.0)
    assert verdict.winner is None and verdict.reason == "no review states a confidence above 0"
    sure = [dataclasses.replace(review, confidence=2.0) for review in reviews]
    assert aggregate([[*sure, *reviews]], "confidence-all", 0.0).winner == 1
    assert aggregate([[sure[0], reviews[1]]], "confidence-all", 0.0).winner is None  # one order alone


def test_the_page_shows_the_figures_in_charts_words_and_tables() -> None:
    found = json.loads(json.dumps(calibrate(judged(400), share=0.5, seed=0, draws=200)))
    html = page("<b>name</b>", found)
    assert "<b>name" not in html and "<script" not in html and not re.search(r"(src|href)=\"(?!data:)", html)
    assert "role &lt;script&gt;alert(1)&lt;/script&gt;" in html
    rows = [tuple(re.findall(r"<td[^>]*>(.*?)</td>", row)) for row in re.findall(r"<tr>(.*?)</tr>", html)]
    for bin_ in found["reliability"]:
        assert (f"{bin_['predicted']:.3f}", f"{bin_['right']:.3f}", str(bin_["n"])) in rows
        x, y = round(60 + 480 * bin_["predicted"], 1), round(360 - 340 * bin_["right"], 1)
        assert f'cx="{x}" cy="{y}"' in html
    last = found["abstain"][-1]
    assert (f"{last['coverage']:.3f}", f"{last['accuracy']:.3f}", f"{last['least_margin']:.3f}") in rows
    words = re.findall(r"<desc[^>]*>(.*?)</desc>", html)
    assert len(words) == html.count("<svg") == 2 and all(unescape(html).count(unescape(text)) == 2 for text in words)
    assert f"expected calibration error is {found['calibration_error']:.3f}" in words[0]
    slow = sum(b["n"] * abs(b["right"] - b["predicted"]) for b in found["reliability"])
    assert found["calibration_error"] == pytest.approx(slow / sum(b["n"] for b in found["reliability"]))
    empty = found | {"reliability": [], "abstain": [], "calibration_error": None, "weights": {"not_fitted": "x"}}
    assert "<svg" not in page("r", empty) and "there is no diagram" in page("r", empty)
