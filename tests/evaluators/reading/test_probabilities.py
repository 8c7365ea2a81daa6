"""Expected scores by the bytes of tokens; where they cannot be had, a review is unscored and of a kind of its own."""

from __future__ import annotations

import json
import math

import pytest

from evaluators.messages import Reply
from evaluators.network import Network
from evaluators.reading.probabilities import Token, expectation, expected_score, tokens_from
from evaluators.reading.scores import Scores, parse_scores
from evaluators.values import Failure, Review, Usage
from tests.evaluators.conftest import records
from tests.evaluators.fakes import FakeJudge, judged

LIKELY = {"8": math.log(0.5), " 4": math.log(0.25), "no": math.log(0.25)}
EXPECTED = (0.5 * 8 + 0.25 * 4) / 0.75


def listed(pieces: list[bytes], *, with_bytes: bool = True) -> list[dict]:
    """As a server writes tokens: a part of a character as text is U+FFFD."""
    tokens = []
    for piece in pieces:
        top = [{"token": token, "logprob": value} for token, value in LIKELY.items()] if piece.strip().isdigit() else []
        text = piece.decode(errors="replace")
        tokens.append(
            {"token": text, "logprob": -0.1, "top_logprobs": top} | ({"bytes": list(piece)} if with_bytes else {})
        )
    return tokens


def pieces_of(text: str, size: int = 3) -> list[bytes]:
    """Tokens of a few bytes, which cut characters; a score's digit is one of its own."""
    raw, pieces = text.encode(), []
    while raw:
        length = (
            1 if raw[:1].isdigit() else min(size, next((n for n in range(1, size) if raw[n : n + 1].isdigit()), size))
        )
        pieces.append(raw[:length])
        raw = raw[length:]
    return pieces


TEXTS = [
    "Fine.\nScore of Assistant 1: 8\nScore of Assistant 2: 6",
    "Fine 🎉👍🏽.\nScore of Assistant 1: 8\nScore of Assistant 2: 6",
    "第一个更好。\n助手1的得分：8\n助手2的得分：6",
    "क्योंकि\nसहायक 1 का स्कोर: 8\nसहायक 2 का स्कोर: 6",
    '{"evidence": "🎉 第一", "score_1": 8, "score_2": 6}',
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("around", [("", ""), ("<think>8 or 6? 🎉</think>\n", ""), ("", "<|im_end|>"), ("\n", "\n")])
def test_expected_scores_of_tokens_that_cut_characters(text, around):
    tokens = tokens_from(listed(pieces_of(around[0] + text + around[1])))
    scores = parse_scores(text, (1, 9), structured=True)
    assert tokens is not None and isinstance(scores, Scores)
    assert expected_score(text, scores.spans, tokens, (1, 9)) == pytest.approx((EXPECTED, EXPECTED))


def test_tokens_that_do_not_spell_the_scores_give_none():
    text = TEXTS[1]
    scores = parse_scores(text, (1, 9))
    assert isinstance(scores, Scores)
    assert expected_score(text, scores.spans, tokens_from(listed([b"other"])) or [], (1, 9)) is None
    glued = [*pieces_of(text[:-9]), text[-9:].encode()]
    assert expected_score(text, scores.spans, tokens_from(listed(glued)) or [], (1, 9)) is None
    halves = "Score of Assistant 1: 8.5\nScore of Assistant 2: 6"
    scores = parse_scores(halves, (1, 9))
    assert isinstance(scores, Scores)
    assert expected_score(halves, scores.spans, tokens_from(listed(pieces_of(halves))) or [], (1, 9)) is None


@pytest.mark.parametrize("odd", [None, "x", [], float("nan")])
def test_a_candidate_without_a_probability_is_left_out(odd):
    top = [
        {"token": "8", "logprob": math.log(0.5)},
        {"token": "2", "logprob": odd},
        {"token": None, "logprob": 0},
        None,
    ]
    (token,) = tokens_from([{"token": "8", "bytes": None, "top_logprobs": top}]) or []
    assert token == Token(b"8", {"8": math.log(0.5)})
    text = "Score: 8"
    assert expected_score(text, ((7, 8),), [Token(b"Score:", {}), Token(b" 8", token.top)], (1, 9)) == (8,)


@pytest.mark.parametrize("shape", [None, "x", [None], [{"token": 3}], [{}]])
def test_other_shapes_are_no_tokens(shape):
    assert tokens_from(shape) is None


def test_expectation_by_hand():
    logs = {8: math.log(0.5), 6: math.log(0.25), 1: math.log(0.25)}
    assert expectation(logs) == pytest.approx(0.5 * 8 + 0.25 * 6 + 0.25 * 1)


def test_written_and_expected_scores_are_never_mixed():
    text = "Fine.\nScore of Assistant 1: 8\nScore of Assistant 2: 6"

    def answer(call):
        return Reply(text, Usage(10, 5), "stop", (7.5, 6.5) if call.place.order == "12" else None)

    fake = FakeJudge(answer)
    judgement = judged(Network(depth=1, roles=("A",)), fake, probabilities=True, scale=(1, 9))  # type: ignore[arg-type]
    first, second = judgement.layers[0]
    assert isinstance(first, Review) and first.scores == (7.5, 6.5)
    assert isinstance(second, Failure) and second.kind == "probabilities" and "probabilities" in second.reason
    assert len(fake.calls) == 2  # asking again would give the same


@pytest.mark.parametrize("with_bytes", [True, False])
def test_a_server_that_cuts_characters(judge, server, pairs, tmp_path, with_bytes):
    text = TEXTS[1]
    server.faults = {-1: {"text": text, "logprobs": {"content": listed(pieces_of(text), with_bytes=with_bytes)}}}
    flags = ["--structured", "off", "--preset", "single", "--limit", 1, "--scores", "probabilities", "--scale", 1, 9]
    judge("run", "--data", pairs, "--judge", "openai:m", "--base-url", server.url, "--out", "out", *flags)
    (record,) = records(tmp_path / "out")
    (review,) = record["layers"][0]
    # The scores themselves are ASCII: what stands before them need not be spelled.
    assert review["scores"] == pytest.approx([EXPECTED, EXPECTED])
    server.faults[-1]["logprobs"]["content"] = listed([b"other"])
    judge("run", "--data", pairs, "--judge", "openai:m", "--base-url", server.url, "--out", "o", *flags, "--refresh")
    (record,) = records(tmp_path / "o")
    assert record["layers"][0][0]["kind"] == "probabilities" and record["verdict"]["scores"] is None
    told = json.loads((tmp_path / "o" / "metrics.json").read_text())["unscored_reviews"]
    assert list(told.values()) == [1] and "token probabilities" in next(iter(told))
