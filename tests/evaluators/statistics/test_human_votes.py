"""Votes as people have them: a file like MT-bench's human judgments, with 80 questions and 3,300 votes."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import chi2, t
from statsmodels.api import OLS

from evaluators.benchmarks import read
from evaluators.statistics.clusters import clusters, keys
from evaluators.statistics.compare import paired
from tests.evaluators.conftest import Done

QUESTIONS, VOTES = 80, 3_300
MODELS = {"m1": 1.2, "m2": 0.6, "m3": 0.0, "m4": -0.4, "m5": -1.4}


def votes(path: Path) -> list[tuple[int, str, str, str]]:
    """Several people's votes on the same pairs, of one turn or two; a question favours some models over others."""
    random = np.random.default_rng(7)
    pairs = list(itertools.combinations(MODELS, 2))
    lean = random.normal(0, 1.0, (QUESTIONS, len(MODELS)))
    found, lines = [], []
    for _ in range(VOTES):
        question = int(random.integers(QUESTIONS))
        one, other = pairs[int(random.integers(len(pairs)))]
        if random.random() < 0.5:
            one, other = other, one
        gap = MODELS[one] - MODELS[other]
        gap += lean[question, list(MODELS).index(one)] - lean[question, list(MODELS).index(other)]
        winner = (
            "tie" if random.random() < 0.2 else "model_a" if random.random() < 1 / (1 + math.exp(-gap)) else "model_b"
        )
        turn = int(random.integers(1, 3))
        found.append((question, one, other, winner))
        asked = f"Question number {question}?"
        conversations = {
            name: [
                {"role": "user", "content": asked},
                {"role": "assistant", "content": f"{model} on {question}"},
                {"role": "user", "content": f"And more of {question}?"},
                {"role": "assistant", "content": f"{model} more on {question}"},
            ][: 2 * turn]
            for name, model in (("conversation_a", one), ("conversation_b", other))
        }
        lines.append(
            {"question_id": 81 + question, "model_a": one, "model_b": other, "winner": winner, "judge": "author_0"}
            | {"turn": turn}
            | conversations
        )
    path.write_text("\n".join(map(json.dumps, lines)))
    return found


def test_a_leaderboard_of_votes_draws_questions_and_not_votes(judge: Callable[..., Done], tmp_path: Path) -> None:
    """Win rates against cluster-robust regressions on a constant; both turns of a question are one cluster."""
    played = votes(tmp_path / "votes.jsonl")
    words = ("--data", "votes.jsonl", "--format", "mt-bench", "--json", "--draws", 400)
    done = judge("leaderboard", *words)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["comparisons"] == VOTES
    assert [row["system"] for row in found["standings"]] == list(MODELS)
    for row in found["standings"]:
        name = row["system"]
        own = [(question, one, winner) for question, one, other, winner in played if name in (one, other)]
        share = np.array(
            [0.5 if winner == "tie" else float((winner == "model_a") == (one == name)) for _, one, winner in own]
        )
        groups = np.array([question for question, _, _ in own])
        fit = OLS(share, np.ones(len(own))).fit(cov_type="cluster", cov_kwds={"groups": groups})
        ends = row["win_rate_interval"]
        assert ends["clusters"] == QUESTIONS
        half = t.ppf(0.975, QUESTIONS - 1) * float(fit.bse[0])
        assert (ends["high"] - ends["low"]) / 2 == pytest.approx(half, rel=0.02)
        # Votes taken one by one would be far too sure of themselves.
        assert half > 1.5 * 1.96 * share.std() / math.sqrt(len(own))
        strength = row["strength_interval"]
        assert strength["low"] < row["strength"] < strength["high"]


def test_two_judges_of_these_votes_are_compared_by_question(tmp_path: Path) -> None:
    """Two equal judges, each right in some questions: 3,300 votes would make luck proof, 80 questions do not."""
    played = votes(tmp_path / "votes.jsonl")
    pairs = [
        pair
        for _, pair in read(tmp_path / "votes.jsonl", kind="mt-bench", fields={}, families=frozenset({"QA", "MDia"}))
    ]
    of = clusters([keys(pair.query, (pair.response1, pair.response2)) for pair in pairs])
    assert len(set(of)) == QUESTIONS
    human = [int(pair.human) for pair in pairs if pair.human is not None]
    random = np.random.default_rng(1)
    right = random.random((2, QUESTIONS)) < 0.7
    judges = [
        [label if side[question] else (label + 1) % 3 for label, (question, *_) in zip(human, played, strict=True)]
        for side in right
    ]
    found = paired(human, *judges, of, draws=300)
    apart = found["only_first_right"] + found["only_second_right"]
    lead = np.zeros(QUESTIONS)
    for question, *_ in played:
        lead[question] += int(right[1, question]) - int(right[0, question])
    assert found["mcnemar_p"] == pytest.approx(chi2.sf(lead.sum() ** 2 / (lead**2).sum(), 1))
    assert found["mcnemar_p"] > 100 * chi2.sf(lead.sum() ** 2 / apart, 1)
    gap = np.array([int(b == h) - int(a == h) for h, a, b in zip(human, *judges, strict=True)], float)
    groups = np.array([question for question, *_ in played])
    fit = OLS(gap, np.ones(VOTES)).fit(cov_type="cluster", cov_kwds={"groups": groups})
    ends = found["difference"]["accuracy"]
    half = t.ppf(0.975, QUESTIONS - 1) * float(fit.bse[0])
    assert (ends["high"] - ends["low"]) / 2 == pytest.approx(half, rel=0.03)
    assert found["design_effect"] == pytest.approx(float(fit.bse[0]) ** 2 * VOTES / gap.var()) and half > 0.1
