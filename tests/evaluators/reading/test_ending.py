"""A reply that did not end of itself is not read: it may end within a number."""

from __future__ import annotations

import pytest

from evaluators.messages import Reply
from evaluators.network import Network
from evaluators.reading.ending import LAID, cut_off
from evaluators.values import Failure, Usage
from tests.evaluators.conftest import records
from tests.evaluators.fakes import FakeJudge, judged

CUT = "Evaluation evidence: fine.\nScore of Assistant 1: 8\nScore of Assistant 2: 1"


@pytest.mark.parametrize(
    "finish",
    [None, "", "stop", "STOP", "eos", "eos_token", "end_turn", "stop_sequence", "COMPLETE", "FinishReason.STOP", LAID],
)
def test_what_ends_of_itself_is_whole(finish):
    assert cut_off(finish, 99, 100) is None and cut_off(finish, None, 100) is None
    assert cut_off(finish, 99, 100, unclosed=True) is not None


@pytest.mark.parametrize(
    "finish",
    [
        "length",
        "LENGTH",
        "max_tokens",
        "MAX_TOKENS",
        "model_length",
        "error",
        "abort",
        "tool_calls",
        "content_filter",
        "SAFETY",
        "RECITATION",
        "OTHER",
        "insufficient_system_resource",
        "FinishReason.MAX_TOKENS",
        "pause_turn",
        "?",
    ],
)
def test_what_ends_otherwise_is_not(finish):
    reason = cut_off(finish, 10, 100)
    assert reason is not None and ("--max-tokens" in reason or finish in reason)


def test_who_takes_all_tokens_was_cut_off_whatever_the_server_says():
    assert cut_off("stop", 100, 100) is not None and cut_off("stop", 101, 100) is not None
    assert cut_off(LAID, 100, 100) is None


@pytest.mark.parametrize(
    ("finish", "tokens"), [("length", 10), ("MAX_TOKENS", 10), ("stop", 64), (None, 64), ("abort", 3)]
)
def test_roles_and_reviews_follow_one_rule(finish, tokens):
    for text in (CUT, "- Accuracy: facts\n- Cl"):
        judge = FakeJudge(lambda call, text=text: Reply(text, Usage(10, tokens), finish))
        judgement = judged(Network(depth=1), judge, max_tokens=64, reasks=0)
        assert all(role.standing for role in judgement.roles)
        (layer,) = judgement.layers
        assert all(isinstance(item, Failure) and item.kind == "unparsed" for item in layer)


@pytest.mark.parametrize("fault", [{"finish": "MAX_TOKENS"}, {"usage": {"prompt_tokens": 9, "completion_tokens": 64}}])
def test_a_server_that_cuts_off(judge, server, pairs, tmp_path, fault):
    server.faults = {-1: {"text": CUT, **fault}}
    flags = ["--structured", "off", "--preset", "single", "--limit", 1, "--max-tokens", 64, "--reasks", 0]
    judge("run", "--data", pairs, "--judge", "openai:m", "--base-url", server.url, "--out", "out", *flags)
    (record,) = records(tmp_path / "out")
    assert record["verdict"]["scores"] is None and "--max-tokens" in record["layers"][0][0]["reason"]
