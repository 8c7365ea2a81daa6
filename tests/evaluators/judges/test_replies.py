"""What is in a completion: text, thoughts, why it ended, tokens; and what is told where there is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.judges import CallError
from evaluators.judges.openai.usage import reported
from evaluators.messages import Reply
from evaluators.values import Usage
from tests.evaluators import vendors
from tests.evaluators.judges.asking import ask, call, judge_of
from tests.evaluators.vendors import Answer, completion

TEXT = "Score of Assistant 1: 8\nScore of Assistant 2: 6"


def say(content=TEXT, **fields):
    return {"role": "assistant", "content": content, **fields}


@pytest.mark.parametrize(
    ("message", "text", "thoughts"),
    [
        (say(), TEXT, ""),
        (say(reasoning_content="hm"), TEXT, "hm"),
        (say(reasoning="hm"), TEXT, "hm"),
        (say(reasoning="hm", reasoning_content="hm"), TEXT, "hm"),
        (say([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]), "ab", ""),
        (say(["a", {"text": "b"}, {"type": "image_url"}, 3]), "ab", ""),
        (say([{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "b"}]), "b", "hm"),
        (
            say([{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "b"}]),
            "b",
            "hm",
        ),
        (say([{"type": "reasoning", "text": "hm"}, {"type": "text", "text": "b"}]), "b", "hm"),
        (say("half \ud83d of it", reasoning="\udc00"), "half \ufffd of it", "\ufffd"),
        (say("whole \ud83d\ude00 and \u2028 and \x00"), "whole \U0001f600 and \u2028 and \x00", ""),
        (say("x" * 1_000_000), "x" * 1_000_000, ""),
    ],
)
def test_text_and_thoughts(server, message, text, thoughts):
    server.manner = lambda body, number: completion(message)
    reply = ask(judge_of(server))
    assert isinstance(reply, Reply), reply
    assert (reply.text, reply.thoughts, reply.finish) == (text, thoughts, "stop")
    assert reply.usage == Usage(100, 10)
    reply.text.encode()


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (completion(say(None, reasoning_content="I think 8")), "only thoughts (reasoning_content)"),
        (completion(say(None, reasoning="I think 8")), "only thoughts (reasoning)"),
        (completion(say(None, tool_calls=[{"function": {"name": "grade", "arguments": "{}"}}])), "a tool (grade)"),
        (completion(say("", function_call={"name": "grade"})), "a tool (grade)"),
        (completion(say("", refusal="I cannot help")), "refuses: I cannot help"),
        (completion(say("some"), finish="content_filter"), "content filter"),
        (completion(say(""), finish="SAFETY"), "content filter"),
    ],
)
def test_a_reply_that_no_retry_would_mend_is_named_and_paid_for_once(server, answer, told):
    server.manner = lambda body, number: answer
    error = ask(judge_of(server))
    assert isinstance(error, CallError) and not error.retry and told in str(error), error
    assert error.usage == Usage(100, 10)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (completion(say("")), "empty"),
        (completion(say("half"), finish="error"), "broke off"),
        (Answer({"choices": [], "usage": None}), "no message"),
        (Answer({"choices": [{"message": "text"}]}), "no message"),
        (Answer({"choices": {"0": 1}}), "no message"),
        (Answer([]), "no message"),
        (Answer("null"), "no message"),
        (Answer('{"choices": ['), "cannot be read"),
        (Answer("[" * 100_000), "cannot be read"),
    ],
)
def test_what_may_be_better_the_next_time(server, answer, told):
    server.manner = lambda body, number: answer
    error = ask(judge_of(server))
    assert isinstance(error, CallError) and error.retry and told in str(error), error
    assert error.usage in (None, Usage(100, 10))


@pytest.mark.parametrize(
    ("finish", "completion_tokens", "read"),
    [
        ("stop", 10, "stop"),
        ("eos", 10, "stop"),
        ("STOP", 10, "stop"),
        ("end_turn", 10, "stop"),
        (None, 10, None),
        ("length", 10, "length"),
        ("MAX_TOKENS", 10, "length"),
        ("max_output_tokens", 10, "length"),
        ("stop", 256, "length"),
        (None, 300, "length"),
    ],
)
def test_why_a_reply_ended(server, finish, completion_tokens, read):
    usage = {**vendors.USAGE, "completion_tokens": completion_tokens, "total_tokens": 100 + completion_tokens}
    server.manner = lambda body, number: completion(TEXT, finish=finish, usage=usage)
    assert ask(judge_of(server)).finish == read


OPENAI = {"prompt_tokens": 100, "completion_tokens": 300, "total_tokens": 400}


@pytest.mark.parametrize(
    ("usage", "read"),
    [
        (OPENAI, Usage(100, 300)),
        ({**OPENAI, "completion_tokens_details": {"reasoning_tokens": 200}}, Usage(100, 300, reasoning=200)),
        ({**OPENAI, "prompt_tokens_details": {"cached_tokens": 60}}, Usage(100, 300, cached_prompt=60)),
        ({**OPENAI, "prompt_cache_hit_tokens": 60, "prompt_cache_miss_tokens": 40}, Usage(100, 300, cached_prompt=60)),
        ({**OPENAI, "prompt_tokens_details": None, "completion_tokens_details": None}, Usage(100, 300)),
        # Gemini: thoughts in the total only.
        ({"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 2120}, Usage(100, 2020, reasoning=2000)),
        # xAI: told, and in the total, and not in the completion.
        (
            {
                "prompt_tokens": 100,
                "completion_tokens": 10,
                "total_tokens": 1110,
                "completion_tokens_details": {"reasoning_tokens": 1000},
            },
            Usage(100, 1010, reasoning=1000),
        ),
        # The same without a total.
        (
            {"prompt_tokens": 100, "completion_tokens": 10, "completion_tokens_details": {"reasoning_tokens": 1000}},
            Usage(100, 1010, reasoning=1000),
        ),
        ({"input_tokens": 100, "output_tokens": 20, "total_tokens": 120}, Usage(100, 20)),
        (
            {"promptTokenCount": 100, "candidatesTokenCount": 20, "thoughtsTokenCount": 50, "totalTokenCount": 170},
            Usage(100, 70, reasoning=50),
        ),
        ({"prompt_tokens": 100.0, "completion_tokens": 20.0}, Usage(100, 20)),
        ({"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 0}, Usage(100, 20)),
        ({"prompt_tokens": 0, "completion_tokens": 20}, None),
        ({"prompt_tokens": -100, "completion_tokens": 20}, None),
        ({"prompt_tokens": True, "completion_tokens": True}, None),
        ({"prompt_tokens": "100", "completion_tokens": "20"}, None),
        ({"prompt_tokens": float("nan"), "completion_tokens": 1}, None),
        ({"prompt_tokens": 10**12, "completion_tokens": 1}, None),
        ({}, None),
        (None, None),
        ([], None),
    ],
)
def test_tokens_as_the_provider_bills_them(usage, read):
    assert reported(usage) == read


@given(*[st.integers(0, 5000)] * 4)
def test_no_token_is_billed_that_no_field_tells_of(prompt, completion_tokens, total, reasoning):
    usage = reported(
        {
            "prompt_tokens": prompt,
            "completion_tokens": completion_tokens,
            "total_tokens": total,
            "completion_tokens_details": {"reasoning_tokens": reasoning},
        }
    )
    if usage is None:
        assert prompt == 0
        return
    assert completion_tokens <= usage.completion <= max(completion_tokens + reasoning, total - prompt)
    assert 0 <= usage.reasoning <= usage.completion


def test_probabilities_without_a_number_are_unknown(server):
    tops = [{"token": "8", "logprob": -0.1}, {"token": "9", "logprob": None}]
    tokens = [
        *({"token": sign, "logprob": None, "top_logprobs": [{"token": sign, "logprob": None}]} for sign in TEXT[:23]),
        {"token": "8", "logprob": -0.1, "top_logprobs": tops},
        *({"token": sign, "logprob": 0.0, "top_logprobs": [{"token": sign, "logprob": 0.0}]} for sign in TEXT[24:]),
    ]
    start = TEXT.index("8")
    tokens = [
        {"token": sign, "logprob": None, "top_logprobs": tops if at == start else [{"token": sign, "logprob": 0.0}]}
        for at, sign in enumerate(TEXT)
    ]
    server.manner = lambda body, number: completion(TEXT, logprobs={"content": tokens})
    assert ask(judge_of(server), call(probabilities=True)).expected == (8.0, 6.0)


def test_nothing_reported_is_estimated_for_a_reply_and_marked(server):
    server.manner = lambda body, number: completion(TEXT, usage=None)
    usage = ask(judge_of(server)).usage
    assert usage.estimated and usage.completion == -(-len(TEXT) // 3)
