"""Thoughts are split off in one place: what a model only thought is kept, and neither read nor shown."""

from __future__ import annotations

import json

import pytest

from evaluators.messages import Reply
from evaluators.network import Network
from evaluators.reading.scores import Scores, parse_scores
from evaluators.reading.thoughts import from_message, split
from evaluators.values import Failure, Review, Usage
from tests.evaluators.conftest import records
from tests.evaluators.fakes import FakeJudge, judged

DRAFT = "Hmm.\nScore of Assistant 1: 3\nScore of Assistant 2: 9\n1. First the user asks\n- Maybe correctness"
VERDICT = "Evaluation evidence: fine.\nScore of Assistant 1: 8\nScore of Assistant 2: 6"

FORMS = [
    "<think>{}</think>{}",
    "<think>\n{}\n</think>\n\n{}",
    "<THINK>{}</THINK>\n{}",
    "<think time='3'>{}</think>\n{}",
    "<thinking>{}</thinking>{}",
    "<thought>{}</thought>{}",
    "<Thought>{}</Thought><Output>{}</Output>",
    "<reasoning>\n{}\n</reasoning>\n{}",
    "<reasoning>{}</reasoning><answer>{}</answer>",
    "<analysis>{}</analysis>{}",
    "<scratchpad>{}</scratchpad>{}",
    "<seed:think>{}</seed:think>{}",
    "<antThinking>{}</antThinking>{}",
    "[THINK]{}[/THINK]{}",
    "◁think▷{}◁/think▷{}",
    "<|begin_of_thought|>{}<|end_of_thought|>\n<|begin_of_solution|>{}<|end_of_solution|>",
    "<|START_THINKING|>{}<|END_THINKING|>{}",
    "<unused94>thought\n{}<unused95>{}",
    "{}</think>{}",
    "{}\n</thinking>\n{}",
    "{}[/THINK]{}",
    "<|channel|>analysis<|message|>{}<|end|><|start|>assistant<|channel|>final<|message|>{}<|return|>",
    "<|start|>assistant<|channel|>analysis<|message|>{}<|end|>\n<|start|>assistant<|channel|>final<|message|>{}",
    "<|channel|>analysis<|message|>{}<|channel|>final<|message|>{}",
    "<|channel|>commentary<|message|>{}<|end|><|channel|>final <|constrain|>json<|message|>{}",
    "<|channel>thought\n{}<channel|>{}",
    "analysisWell. {}assistantfinal{}",
    "Here is my thought process: {}\nHere is my response:\n{}",
    "<|im_start|><think>{}</think>{}<|im_end|>",
    "<think>a <think> {} </think> b</think>{}",
    "<think>{} the tag `</think>` is one</think>{}",
    '<think>It says "</think>" {}</think>{}',
    '<think>He said "yes"</think>{}</think>{}',
    "<reasoning>{} <think> x </think></reasoning>{}",
    "<think></think><think>{}</think>{}",
]


@pytest.mark.parametrize("form", FORMS)
def test_thoughts_are_kept_apart_from_what_is_said(form):
    found = split(form.format(DRAFT, VERDICT))
    assert not found.unclosed and "Score of Assistant 1: 3" in found.thoughts
    assert "Score of Assistant 1: 3" not in found.text and "First the user" not in found.text
    scores = parse_scores(found.text, (1, 10))
    assert isinstance(scores, Scores) and scores.values == (8, 6) and "Hmm" not in scores.evidence
    again = split(found.text)
    assert again.text == found.text and not again.thoughts
    # Who thinks and then declines has given no scores.
    declined = split(form.format(DRAFT, "I would rather not give numbers."))
    assert not isinstance(parse_scores(declined.text, (1, 10)), Scores)


@pytest.mark.parametrize(
    "opening",
    [
        "<think>",
        "<thinking>\n",
        "<reasoning>",
        "[THINK]",
        "◁think▷",
        "<seed:think>",
        "<|begin_of_thought|>",
        "<|channel|>analysis<|message|>",
        "analysisThe user. ",
        VERDICT + "\n<think>",
        "<think>a</think>b<think>",
    ],
)
def test_thoughts_that_do_not_end_are_a_reply_that_was_cut_off(opening):
    reply = Reply(opening + DRAFT, Usage(10, 5), "stop")
    assert reply.unclosed and "Score of Assistant 1: 3" not in reply.text
    judgement = judged(Network(depth=1, roles=("A",)), FakeJudge(lambda call: reply), reasks=0)  # type: ignore[arg-type]
    (failure, _) = judgement.layers[0]
    assert isinstance(failure, Failure) and "thoughts" in failure.reason


@pytest.mark.parametrize(
    "spoken",
    [
        "The answer has a `<think>` tag.",
        'It says "</think>" for no reason.',
        "It hides in “<think>” and “</think>”.",
        "x </s",
    ],
)
def test_a_tag_that_is_spoken_of_splits_nothing(spoken):
    text = f"{spoken}\n{VERDICT}"
    assert split(text) == (text, "", False)


def test_several_blocks_of_thoughts():
    found = split("<think>one</think>First.\n<think>two</think>Then.\n")
    assert found == ("First.\nThen.", "one\ntwo", False)


def test_half_characters_and_ends_of_turns_stay_in_no_reply():
    reply = Reply("half \ud83d<|im_end|>", Usage(1, 1), thoughts="\udc00")
    assert (reply.text, reply.thoughts) == ("half \ufffd", "\ufffd")
    json.dumps(reply.text, ensure_ascii=False).encode()


@pytest.mark.parametrize(
    "message",
    [
        {"content": VERDICT, "reasoning_content": DRAFT},
        {"content": VERDICT, "reasoning": DRAFT},
        {"content": VERDICT, "reasoning": DRAFT, "reasoning_content": DRAFT},
        {"content": VERDICT, "reasoning": None, "thinking": DRAFT},
        {"content": VERDICT, "reasoning_details": [{"type": "reasoning.text", "text": DRAFT}]},
        {"content": [{"type": "thinking", "thinking": DRAFT}, {"type": "text", "text": VERDICT}]},
        {
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": DRAFT}]},
                {"type": "text", "text": VERDICT},
            ]
        },
        {"content": [{"type": "reasoning", "summary": [{"text": DRAFT}]}, {"type": "output_text", "text": VERDICT}]},
        {
            "content": [{"type": "text", "text": VERDICT[:30]}, {"type": "text", "text": VERDICT[30:]}],
            "reasoning": DRAFT,
        },
    ],
)
def test_fields_of_servers(message):
    assert from_message({"role": "assistant", **message}) == (VERDICT, DRAFT)


def test_odd_messages_hold_nothing():
    for message in ({}, {"content": None}, {"content": 3}, {"content": [None, {"type": "image"}]}, {"reasoning": 3}):
        assert from_message(message) == ("", "")


@pytest.mark.parametrize("form", [FORMS[0], FORMS[18], FORMS[21]])
def test_nobody_reads_or_sees_thoughts_in_a_whole_network(form):
    seen: list[str] = []

    def answer(call):
        seen.append("\n".join(message.content for message in call.messages))
        text = "- Accuracy: facts\n- Clarity: words" if call.place.task == "roles" else VERDICT
        return form.format(DRAFT, text)

    judgement = judged(Network(depth=2), FakeJudge(answer), structured="off")
    assert [role.name for role in judgement.roles] == ["Accuracy", "Clarity"]
    reviews = [item for layer in judgement.layers for item in layer]
    assert all(isinstance(item, Review) and set(item.scores) == {8, 6} for item in reviews)
    assert all(item.evidence == "fine." for item in reviews if isinstance(item, Review))
    assert not any("Hmm" in prompt for prompt in seen)
    calls = [call for item in reviews for call in item.calls] + list(judgement.roles_calls)
    assert all("Hmm." in call.thoughts and "Hmm." not in (call.text or "") for call in calls)


@pytest.mark.parametrize("where", ["content", "reasoning_content", "reasoning", "parts"])
def test_thoughts_of_a_server_stand_in_the_record_and_are_counted(judge, server, pairs, tmp_path, where):
    text = {"content": f"<think>{DRAFT}</think>{VERDICT}"}.get(where, VERDICT)
    parts = [{"type": "thinking", "thinking": DRAFT}, {"type": "text", "text": VERDICT}]
    fault = {"text": parts if where == "parts" else text}
    server.faults = {-1: fault | ({"message_fields": {where: DRAFT}} if where.startswith("reasoning") else {})}
    flags = ["--structured", "off", "--preset", "single", "--backoff", 0.01, "--limit", 1]
    done = judge("run", "--data", pairs, "--judge", "openai:m", "--base-url", server.url, "--out", "out", *flags)
    assert done.returncode == 0, done.stderr
    (record,) = records(tmp_path / "out")
    assert record["verdict"]["scores"] == [8, 6]
    (review,) = record["layers"][0]
    assert "Hmm." in review["calls"][0]["thoughts"] and "Hmm." not in review["calls"][0]["text"]
    assert "thoughts    1 replies" in done.stdout
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["thoughts"]["replies"] == 1 and metrics["thoughts"]["characters"] >= len(DRAFT)
    # From the cache they come apart too.
    again = judge("run", "--data", pairs, "--judge", "openai:m", "--base-url", server.url, "--out", "other", *flags)
    assert again.returncode == 0 and records(tmp_path / "other")[0]["layers"][0][0]["calls"][0]["thoughts"]


def test_a_reply_that_is_only_thoughts_is_named_and_not_paid_seven_times(judge, server, pairs, tmp_path):
    server.faults = {-1: {"text": None, "message_fields": {"reasoning_content": f"I think {VERDICT}"}}}
    flags = ["--structured", "off", "--preset", "single", "--backoff", 0.01, "--limit", 1, "--reasks", 0]
    judge("run", "--data", pairs, "--judge", "openai:m", "--base-url", server.url, "--out", "out", *flags)
    (record,) = records(tmp_path / "out")
    assert record["verdict"]["winner"] is None and len(server.requests) == 1
    assert "only thoughts" in record["layers"][0][0]["reason"]
