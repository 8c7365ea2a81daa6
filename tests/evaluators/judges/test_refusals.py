"""What a refusal means, by status and words: the run's end, the sample's failure, or another try."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest

from evaluators.errors import RunError
from evaluators.judges import CallError
from evaluators.messages import Reply
from tests.evaluators import vendors
from tests.evaluators.conftest import records, write_pairs
from tests.evaluators.judges.asking import IN_FLIGHT, ask, ask_all, call, judge_of
from tests.evaluators.vendors import Answer, completion, refusal, text_for

HTML = "<!DOCTYPE html><html><head><title>Sign in - Gateway</title></head><body>\x1b[31mx</body></html>"
ENDS = [
    (refusal(401, "Incorrect API key provided"), "refuses the key"),
    (refusal(403, "Your API key does not have permission to use the specified resource"), "refuses the key"),
    (Answer({"code": "permission_denied", "error": "Your team has no access to this model"}, 403), "refuses the key"),
    (Answer([{"error": {"code": 400, "message": "API key not valid. Please pass a valid API key."}}], 400), "the key"),
    (Answer({"error": {"message": "invalid api key", "code": "invalid_api_key"}}), "refuses the key"),
    (refusal(402, "Insufficient Balance"), "no money left"),
    (refusal(402, "injected"), "no money left"),
    (refusal(429, "You exceeded your current quota", code="insufficient_quota"), "no money left"),
    (refusal(400, "Your credit balance is too low to access the API."), "no money left"),
    (Answer({"code": 30001, "message": "Sorry, your account balance is insufficient", "data": None}, 403), "no money"),
    (Answer({"error": {"code": "1113", "message": "您的账户已欠费，请充值后重试。"}}, 429), "no money left"),
    (Answer({"error": {"message": "Insufficient credits", "code": 402}}), "no money left"),
    (refusal(404, "The model `m` does not exist", code="model_not_found"), "check the model's name"),
    (refusal(400, "Model Not Exist"), "check the model's name"),
    (refusal(400, "Invalid model: m"), "check the model's name"),
    (Answer({"detail": "Not Found"}, 404), "check the model's name"),
    (Answer("<html><h1>405 Not Allowed</h1></html>", 405, "text/html"), "405 Not Allowed; check the URL"),
    (refusal(403, "Your account has been deactivated"), "refuses the account"),
]
SAMPLES = [
    (refusal(400, "filtered due to Azure OpenAI's content management policy", code="content_filter"), "moderated"),
    (refusal(403, "Your chosen model requires moderation and your input was flagged for 'violence'"), "moderated"),
    (refusal(400, "Content Exists Risk"), "moderated"),
    (refusal(400, "Input data may contain inappropriate content.", code="data_inspection_failed"), "moderated"),
    (
        refusal(400, "your prompt was flagged as potentially violating our usage policy", code="invalid_prompt"),
        "moderated",
    ),
    (refusal(400, "This model's maximum context length is 2048 tokens. However, you requested 3000"), "context"),
    (refusal(400, "prompt is too long: 203042 tokens > 200000 maximum"), "context"),
    (
        refusal(400, "'max_tokens' is too large: 1024. The model's context length is 2048", param="max_tokens"),
        "context",
    ),
    (Answer({"error": {"code": 500, "message": "the request exceeds the available context size"}}, 500), "context"),
    (Answer({"error": "Trying to keep the first 8000 tokens when context length is only 4096"}), "context"),
    (refusal(413, "Request too large"), "context"),
    (refusal(400, "input length and `max_tokens` exceed context limit: 199999 + 1024 > 200000"), "context"),
    (Answer({"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096"}, 422), "context"),
    (refusal(400, "Range of input length should be [1, 30720]"), "context"),
    (refusal(400, "The input token count (9) exceeds the maximum number of tokens allowed (8)."), "context"),
    (refusal(429, "Request too large for m on tokens per min (TPM): Limit 30000, Requested 60000."), "context"),
    (Answer({"detail": "something about this one"}, 400), "call"),
    (Answer({"error": "something about this one"}, 422), "call"),
    (Answer("something about this one", 400, "text/plain"), "call"),
    (Answer(HTML, 200, "text/html"), "call"),
    (vendors.events({}, 0), "call"),
]
AGAIN = [
    (refusal(429, "Rate limit reached. Please try again in 20s."), "rate", None),
    (
        Answer(
            [{"error": {"code": 429, "message": "You exceeded your current quota", "status": "RESOURCE_EXHAUSTED"}}],
            429,
        ),
        "rate",
        None,
    ),
    (Answer({"error": {"message": "Provider returned error", "code": 429, "metadata": {"raw": "busy"}}}), "rate", None),
    (refusal(529, "Overloaded", type="overloaded_error"), "rate", None),
    (Answer({"error": {"message": "Rate limit reached", "code": "rate_limit_exceeded"}}), "rate", None),
    (Answer({"error": {"message": "Provider returned error"}}), "call", None),
    (refusal(503, "The engine is currently overloaded", type="engine_overloaded"), "rate", None),
    (refusal(503, "Model is loading"), "outage", None),
    (Answer(HTML, 502, "text/html"), "outage", None),
    (refusal(408, "timeout"), "call", None),
]


@pytest.mark.parametrize(("answer", "told"), ENDS)
def test_the_runs(server, answer, told):
    server.manner = lambda body, number: answer
    error = ask(judge_of(server))
    assert isinstance(error, RunError) and told in str(error) and "\n" not in str(error), error
    assert len(server.requests) == 1


@pytest.mark.parametrize(("answer", "kind"), SAMPLES)
def test_the_samples(server, answer, kind):
    server.manner = lambda body, number: answer
    error = ask(judge_of(server))
    assert isinstance(error, CallError) and error.kind == kind and not error.retry, error
    assert error.usage is None and "\n" not in str(error) and "\x1b" not in str(error)
    # Its own words are told, whatever their shape.
    for words in ("something about this one", "context", "Sign in - Gateway", "stream of events"):
        assert words not in str(answer.body) or words in str(error) or words == "context"


@pytest.mark.parametrize(("answer", "kind", "wait_s"), AGAIN)
def test_another_try(server, answer, kind, wait_s):
    server.manner = lambda body, number: answer
    error = ask(judge_of(server))
    assert isinstance(error, CallError) and error.retry, error
    assert (error.kind, error.retry_after_s) == (kind, wait_s)


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"Retry-After": "3"}, 3),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250", "Retry-After": "9"}, 0.25),
        ({"Retry-After": "-5"}, 0),
        ({"Retry-After": "100000"}, 86_400),
        ({"Retry-After": "1e308"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "inf"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": ""}, None),
        ({"Retry-After": "Mon, 01 Jan 99999 00:00:00 GMT"}, None),
        ({"Retry-After": "Mon, 99 Foo 2030"}, None),
        ({"Retry-After": "Mon, 01 Jan 1990 00:00:00 GMT"}, 0),
        ({}, None),
    ],
)
def test_how_long_a_server_asks_to_wait(server, headers, wait_s):
    server.manner = lambda body, number: Answer({"error": "slow"}, 429, headers=headers)
    assert ask(judge_of(server)).retry_after_s == wait_s


def test_a_wait_until_a_date(server):
    date = formatdate(time.time() + 100, usegmt=True)
    server.manner = lambda body, number: Answer({"error": "slow"}, 429, headers={"Retry-After": date})
    assert 0 < ask(judge_of(server)).retry_after_s <= 100


@pytest.mark.parametrize("words", ["Forbidden", "Content violates usage guidelines. API key ID: K"])
def test_a_sample_that_is_forbidden_does_not_end_the_run_though_it_is_told_first(server, words):
    """The forbidden one is answered at once, and before anything else has worked."""

    def manner(body, number):
        if "bad" in vendors.prompt_of(body):
            return refusal(403, words)
        return Answer(completion(text_for(body)).body, wait_s=0.3)

    server.manner = manner
    (replies,) = ask_all(judge_of(server), [call("bad"), *(call(f"q{n}") for n in range(IN_FLIGHT - 1))])
    assert isinstance(replies[0], CallError) and not replies[0].retry
    assert all(isinstance(reply, Reply) for reply in replies[1:])


def test_a_403_is_the_runs_where_nothing_has_ever_worked_and_the_samples_afterwards(server):
    server.manner = lambda body, number: refusal(403, "Forbidden")
    (errors,) = ask_all(judge_of(server), [call()] * IN_FLIGHT)
    assert all(isinstance(error, RunError) and "OPENAI_API_KEY" in str(error) for error in errors)
    server.manner = lambda body, number: refusal(403, "Forbidden") if number > IN_FLIGHT else completion(REVIEW)
    worked, error = ask_all(judge_of(server), [call()], [call()])
    assert isinstance(worked[0], Reply) and isinstance(error[0], CallError)


REVIEW = "Score of Assistant 1: 8\nScore of Assistant 2: 6"


def test_a_page_of_a_gateway_is_waited_out_once_something_has_worked(server):
    server.manner = lambda body, number: completion(REVIEW) if number == 0 else Answer(HTML, 200, "text/html")
    _, (error,) = ask_all(judge_of(server), [call()], [call()])
    assert error.kind == "outage" and "answered with text/html: Sign in - Gateway" in str(error)


def test_a_redirect_is_named(server):
    moved = {"Location": server.url.replace("/v1", "/v2/chat/completions")}
    server.manner = lambda body, number: Answer("", 301, headers=moved)
    server.list_models = lambda number: Answer({"error": {"message": "Method Not Allowed"}}, 405)
    error = ask(judge_of(server))
    assert isinstance(error, RunError) and "/v2/chat/completions: Method Not Allowed" in str(error)


def test_a_run_out_of_money_stops_and_goes_on(judge, server, tmp_path):
    flags = ["--judge", "openai:m", "--base-url", server.url, "--data", write_pairs(tmp_path / "p.jsonl", 60)]
    server.manner = vendors.after(8, 402, "Insufficient Balance")
    words = ["run", *flags, "--preset", "single", "--out", "out", "--structured", "off", "--concurrency", 2]
    done = judge(*words)
    assert done.returncode == 1 and "no money left" in done.stderr and "the same command goes on" in done.stderr
    assert len(server.requests) < 12 and len(records(tmp_path / "out")) == 8
    server.manner = lambda body, number: None
    assert judge(*words).returncode == 0 and len(records(tmp_path / "out")) == 60


def test_a_moderated_sample_is_unscored_and_the_rest_is_judged(judge, server, tmp_path):
    pairs = write_pairs(tmp_path / "p.jsonl", 40)
    pairs.write_text(pairs.read_text().replace("question 0?", "anthrax?"))
    server.manner = vendors.xai
    done = judge("run", "--judge", "openai:m", "--base-url", server.url, "--data", pairs, "--out", "out", "--depth", 1)
    assert done.returncode == 0, done.stderr
    winners = {record["id"]: record["verdict"]["winner"] for record in records(tmp_path / "out")}
    assert winners.pop("s0") is None and set(winners.values()) == {0} and "usage guidelines" in done.stdout
