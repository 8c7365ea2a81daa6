"""What a server does not take is found out by each call for itself, at any concurrency, and kept for the run."""

from __future__ import annotations

import json

import pytest

from evaluators.errors import RunError
from evaluators.judges import CallError, NoSchemaError
from evaluators.messages import Reply
from tests.evaluators import vendors
from tests.evaluators.conftest import records, write_pairs
from tests.evaluators.judges.asking import IN_FLIGHT, ask, ask_all, call, judge_of
from tests.evaluators.vendors import Answer, completion, refusal, text_for

LIMIT, SEED, TEMPERATURE = "max_completion_tokens in place of max_tokens", "no seed", "no temperature"
SYSTEM = "the system message in the first message"


def refuses(name, answer):
    """A server that refuses one parameter, in its own way of saying so."""
    return lambda body, number: answer if name in body else completion(text_for(body))


WAYS = {
    "temperature": [
        refusal(400, "Unsupported parameter: 'temperature'", param="temperature"),
        refusal(400, "`temperature` and `top_p` cannot both be specified for this model."),
        Answer({"detail": [{"type": "extra_forbidden", "loc": ["body", "temperature"], "msg": "Extra inputs"}]}, 422),
        Answer({"detail": "temperature is deprecated for this model"}, 400),
        Answer("invalid temperature: only 1 is allowed for this model", 400, "text/plain"),
        Answer({"error": "Argument not supported on this model: temperature"}, 400),
        Answer({"type": "error", "error": {"type": "invalid_request_error", "message": "temperature: range"}}, 400),
        Answer({"error": {"message": "Unsupported parameter: temperature", "code": 400}}, 200),
    ],
    "seed": [
        refusal(400, "property 'seed' is unsupported"),
        Answer({"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]}, 422),
        Answer([{"error": {"code": 400, "message": 'Unknown name "seed": Cannot find field.'}}], 400),
        Answer({"error": {"details": [{"fieldViolations": [{"field": "seed"}]}], "message": "bad"}}, 400),
    ],
    "max_tokens": [
        refusal(400, "Unsupported parameter: 'max_tokens'", param="max_tokens"),
        refusal(400, "Use 'max_completion_tokens' instead of 'max_tokens'"),
    ],
}
TOLD = {"temperature": TEMPERATURE, "seed": SEED, "max_tokens": LIMIT}


@pytest.mark.parametrize(("name", "answer"), [(name, answer) for name, answers in WAYS.items() for answer in answers])
def test_each_way_of_refusing_a_parameter_is_understood(server, name, answer):
    server.manner = refuses(name, answer)
    first, later = ask_all(judge_of(server), [call(seed=1)] * IN_FLIGHT, [call(seed=1)] * 4)
    for reply in first + later:
        assert isinstance(reply, Reply) and reply.adapted == (TOLD[name],) and "Score" in reply.text, reply
    # Each of those in flight asked twice at most; none after them did.
    assert IN_FLIGHT < len(server.requests) - 4 <= 2 * IN_FLIGHT
    assert all(name not in request for request in server.requests[-4:])


@pytest.mark.parametrize(
    ("manner", "adapted"),
    [
        (vendors.o_series, (LIMIT, TEMPERATURE)),
        (vendors.mistral, (SEED,)),
        (vendors.gemini, (SEED,)),
        (vendors.gemma, (SYSTEM,)),
        (vendors.old, (SEED, TEMPERATURE)),
        (vendors.xai, ()),
    ],
)
def test_vendors_with_several_wishes_answer_every_call(server, manner, adapted):
    server.manner = manner
    (replies,) = ask_all(judge_of(server), [call(f"q{number}", seed=1) for number in range(IN_FLIGHT)])
    for reply in replies:
        assert isinstance(reply, Reply), reply
        assert reply.adapted == adapted and reply.text.endswith("Score of Assistant 1: 8\nScore of Assistant 2: 6")


def test_the_system_message_moves_into_the_users(server):
    server.manner = vendors.gemma
    ask(judge_of(server), call("is it?"))
    assert server.requests[-1]["messages"] == [{"role": "user", "content": "You are strict.\n\nis it?"}]


@pytest.mark.parametrize(
    "words",
    [
        "Jinja Exception: Conversation roles must alternate user/assistant/user/assistant/...",
        "Only user and assistant roles are supported!",
        "Developer instruction is not enabled for models/gemma-3-27b-it",
    ],
)
@pytest.mark.parametrize("status", [400, 500])
def test_other_words_for_no_system_role(server, words, status):
    server.manner = lambda body, number: (
        refusal(status, words) if body["messages"][0]["role"] == "system" else completion(text_for(body))
    )
    assert ask(judge_of(server)).adapted == (SYSTEM,)


@pytest.mark.parametrize("name", ["temperature", "seed", "logprobs", "max_tokens", "schema", "system role"])
@pytest.mark.parametrize("param", ["messages[1].content", None])
def test_a_message_that_quotes_the_prompt_teaches_nothing(server, name, param):
    prompt = f"At what {name} does ice cream melt, if a {name} is set?"
    words = f"Invalid content: string contains characters that are not allowed: '{prompt}'"
    server.manner = lambda body, number: (
        refusal(400, words, param=param) if "ice" in vendors.prompt_of(body) else completion(text_for(body))
    )
    failed, fine = ask_all(judge_of(server), [call(prompt, seed=1)], [call(seed=1)])
    assert isinstance(failed[0], CallError) and failed[0].kind == "call" and not failed[0].retry
    assert not isinstance(failed[0], NoSchemaError) and "ice cream" in str(failed[0])
    assert isinstance(fine[0], Reply) and fine[0].adapted == ()


def test_a_wish_is_learned_only_from_a_call_that_worked_without(server):
    """The server names the temperature, but it was not that."""
    server.manner = lambda body, number: (
        refusal(400, "the temperature of this text is too high")
        if "hot" in vendors.prompt_of(body)
        else completion(text_for(body))
    )
    failed, fine = ask_all(judge_of(server), [call("hot")], [call("cold")])
    assert isinstance(failed[0], CallError) and isinstance(fine[0], Reply)
    assert fine[0].adapted == () and server.requests[-1]["temperature"] == 0.0


def test_known_models_are_asked_as_they_want_from_the_first_call_on(server):
    server.manner = vendors.o_series
    (replies,) = ask_all(judge_of(server, "openai:o3"), [call()] * 4)
    assert len(server.requests) == 4 and all(reply.adapted == (LIMIT, TEMPERATURE) for reply in replies)


def test_fewer_probabilities_where_twenty_are_too_many(server):
    server.manner = vendors.fireworks
    reply = ask(judge_of(server), call(probabilities=True))
    assert reply.adapted == ("top_logprobs 5",) and server.requests[-1]["top_logprobs"] == 5


@pytest.mark.parametrize("manner", [vendors.o_series, vendors.mistral])
def test_a_model_without_probabilities_ends_the_run_that_needs_them(server, manner):
    server.manner = manner
    error = ask(judge_of(server), call(probabilities=True))
    assert isinstance(error, RunError) and "use --scores text" in str(error)


def test_a_reply_that_fails_under_its_schema_is_asked_for_in_text_by_itself(server):
    words = "Failed to generate JSON. Please adjust your prompt. See 'failed_generation' for more details."
    server.manner = lambda body, number: refusal(400, words, code="json_validate_failed")
    error = ask(judge_of(server), call(schema=True))
    assert isinstance(error, NoSchemaError) and not error.lasting


@pytest.mark.parametrize("manner", [vendors.deepseek, vendors.old])
def test_a_run_goes_over_to_text_once_and_again_from_the_cache_without_a_request(judge, server, tmp_path, manner):
    server.manner = manner
    flags = ["--judge", "openai:m", "--base-url", server.url, "--data", write_pairs(tmp_path / "p.jsonl", 40)]
    done = judge("run", *flags, "--preset", "single", "--out", "a")
    assert done.returncode == 0 and "unscored 0" in done.stdout, done.stdout + done.stderr
    assert done.stderr.count("takes no JSON schema") == 1
    before = len(server.requests)
    again = judge("run", *flags, "--preset", "single", "--out", "b")
    assert again.returncode == 0 and "40 from the cache" in again.stdout and len(server.requests) == before
    strict = judge("run", *flags, "--preset", "single", "--out", "c", "--structured", "on")
    assert strict.returncode == 1 and "use --structured auto" in strict.stderr and "Traceback" not in strict.stderr
    assert len(server.requests) <= before + 2 * IN_FLIGHT


def test_wishes_are_said_once_and_stand_in_the_record(judge, server, tmp_path):
    server.manner = vendors.o_series
    flags = ["--judge", "openai:m", "--base-url", server.url, "--data", write_pairs(tmp_path / "p.jsonl", 40)]
    done = judge("run", *flags, "--preset", "single", "--out", "out", "--structured", "off")
    assert done.returncode == 0 and "unscored 0" in done.stdout, done.stdout + done.stderr
    assert done.stderr.count(LIMIT) == done.stderr.count(TEMPERATURE) == 1
    calls = [call for record in records(tmp_path / "out") for call in record["layers"][0][0]["calls"]]
    assert len(calls) == 40 and all(call["adapted"] == [LIMIT, TEMPERATURE] for call in calls)
    assert json.dumps(calls[0]["usage"]["reasoning"]) == "192"
