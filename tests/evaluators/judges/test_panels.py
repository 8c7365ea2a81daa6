"""Judges with servers, keys, options, limits and prices of their own; contexts; the table of known models."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from evaluators.asking.money import Prices
from evaluators.errors import ConfigError
from evaluators.judges import CallError
from evaluators.models import models
from evaluators.network import Network
from evaluators.running.judge_spec import JudgeSpec, parse_options
from evaluators.running.settings import dump, load, parse
from tests.evaluators import vendors
from tests.evaluators.conftest import records, write_pairs
from tests.evaluators.fakes import FakeJudge, judged
from tests.evaluators.judges.asking import ask, judge_of
from tests.evaluators.server import Server
from tests.evaluators.vendors import Answer, completion, refusal, text_for

SECOND = "http://127.0.0.1:9/v1"


@pytest.mark.parametrize(
    ("text", "name", "url", "key"),
    [
        ("openai:m", "openai:m", None, None),
        (f"openai:m@{SECOND}", "openai:m", SECOND, None),
        (f"openai:org/model:free@{SECOND}#A_KEY", "openai:org/model:free", SECOND, "A_KEY"),
        (f"openai:@cf/meta/llama@{SECOND}", "openai:@cf/meta/llama", SECOND, None),
        ("openai:claude@20240620", "openai:claude@20240620", None, None),
        ("openai:claude@20240620@https://x/v1", "openai:claude@20240620", "https://x/v1", None),
        ("openai:m#1", "openai:m#1", None, None),
        ("hf:./a@b", "hf:./a@b", None, None),
        ("simulated:gap=1,skill=0.8", "simulated:gap=1,skill=0.8", None, None),
    ],
)
def test_judges_as_they_are_named(text, name, url, key):
    spec = JudgeSpec.parse(text)
    assert (spec.name, spec.base_url, spec.key_env) == (name, url, key)
    assert JudgeSpec.load(spec.plain()) == spec


@pytest.mark.parametrize(
    "text",
    ["openai:m@localhost:8000", "openai:m@127.0.0.1:8000/v1", "openai:m@[::1]:8000", f"openai:m@{SECOND}#sk-secret"],
)
def test_judges_that_cannot_be_meant(text):
    with pytest.raises(ConfigError, match="--judge openai:m") as refused:
        JudgeSpec.parse(text)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "value",
    [
        *(
            3,
            None,
            {},
            {"base_url": SECOND},
            {"name": "openai:m", "url": SECOND},
            {"name": "openai:m", "concurrency": 0},
        ),
        *({"name": "openai:m", "options": "x"}, {"name": "openai:m", "requests_per_minute": "many"}),
        *({"name": "openai:m", "context": 1.5}, {"name": "openai:m", "concurrency": True}, {"name": 3}),
    ],
)
def test_mappings_that_cannot_be_meant(value):
    with pytest.raises(ConfigError, match="judge"):
        JudgeSpec.load(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("low", "low"), ("1", 1), ("-0.5", -0.5), ("true", True), ("False", False), ("null", None), ('"1"', "1")),
        *(("no", "no"), ("off", "off"), ("none", "none"), ("2024-01-01", "2024-01-01"), ("a=b", "a=b"), ("", "")),
        *(
            ("NaN", "NaN"),
            ('{"a": [1, {"b": null}]}', {"a": [1, {"b": None}]}),
            ("{a: 1}", {"a": 1}),
            ("[1, b]", [1, "b"]),
        ),
    ],
)
def test_values_of_options(text, value):
    assert parse_options([f"x={text}"]) == {"x": value}


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_json_is_read_back(value):
    assert parse_options([f"x={json.dumps(value)}"]) == {"x": value}


@pytest.mark.parametrize("text", ["x", "=1", 'x={"a": ', "x=[1", "x={a: 2024-01-01}"])
def test_options_that_cannot_be_meant(text):
    with pytest.raises(ConfigError, match="--option"):
        parse_options([text])


@pytest.mark.parametrize(
    "words", [["--option", "a=1", "b=2"], ["--option", "a=1", "--option", "b=2"], ["--option=a=1", "--option=b=2"]]
)
def test_options_may_be_given_together_or_one_by_one(tmp_path, words):
    config = parse(["--data", "d", "--out", "o", *words, "--judge", "openai:m", f"openai:n@{SECOND}"], prog="x")
    assert config.server.option == ("a=1", "b=2") and [judge.text for judge in config.judge] == [
        "openai:m",
        f"openai:n@{SECOND}",
    ]
    path = tmp_path / "config.yaml"
    path.write_text(dump(config))
    assert load(path) == config


def test_options_go_through_and_are_part_of_what_is_cached(server):
    options = {
        "reasoning_effort": "low",
        "temperature": 0.3,
        "seed": None,
        "extra_body": {"top_k": 5},
        "extra_query": {"v": "1"},
    }
    judge = judge_of(server, options=options)
    ask(judge)
    sent = server.requests[0]
    assert (sent["reasoning_effort"], sent["temperature"], sent["top_k"]) == ("low", 0.3, 5)
    assert "extra_body" not in sent and "extra_query" not in sent and "seed" not in sent
    others = [judge_of(server).identity, judge_of(server, options={"reasoning_effort": "high"}).identity]
    assert len({judge.identity, *others}) == 3


@pytest.mark.parametrize(
    "options",
    [
        *({"stream": True}, {"messages": []}, {"n": 2}, {"max_tokens": 5}, {"model": "x"}, {"extra_body": {"n": 2}}),
        *({"extra_body": 3}, {"extra_headers": {"Authorization": "Bearer secret"}}, {"extra_headers": {"x": 1}}),
    ],
)
def test_options_that_would_change_what_is_recorded_are_refused(server, options):
    with pytest.raises(ConfigError, match="--option") as refused:
        judge_of(server, options=options)
    assert "secret" not in str(refused.value)


def test_an_option_that_the_server_refuses_ends_the_run_in_its_name(judge, server, tmp_path):
    server.manner = lambda body, number: refusal(400, "Unrecognized request argument supplied: reasoning_effort")
    flags = ["--judge", "openai:m", "--base-url", server.url, "--data", write_pairs(tmp_path / "p.jsonl", 4)]
    done = judge("run", *flags, "--out", "out", "--option", "reasoning_effort=low")
    assert done.returncode == 1 and "refuses --option reasoning_effort" in done.stderr


def test_a_panel_across_vendors_from_a_yaml_file(judge, server, environment, tmp_path):
    """Two servers, each with its key, options and price; a third judge with a URL of its own gets no key."""
    environment |= {"FIRST_KEY": "first-key-123456", "SECOND_KEY": "second-key-654321"}
    with Server() as second, Server() as third:
        panel = [
            {
                "name": "openai:a",
                "base_url": server.url,
                "key_env": "FIRST_KEY",
                "options": {"reasoning_effort": "low"},
            },
            {
                "name": "openai:b/c:free",
                "base-url": second.url,
                "key-env": "SECOND_KEY",
                "price": {"input": 1, "output": 2},
            },
            f"openai:d@{third.url}",
        ]
        (tmp_path / "c.yaml").write_text(yaml.safe_dump({"judge": panel, "network": {"preset": "panel"}}))
        flags = ["--config", "c.yaml", "--data", write_pairs(tmp_path / "p.jsonl", 6), "--out", "out"]
        done = judge("run", *flags)
        assert done.returncode == 0, done.stderr
        sent = [
            {headers.get("Authorization", headers.get("authorization")) for headers in each.headers}
            for each in (server, second, third)
        ]
        assert sent == [{"Bearer first-key-123456"}, {"Bearer second-key-654321"}, {"Bearer none"}]
        assert all(request["reasoning_effort"] == "low" for request in server.requests)
        assert all("reasoning_effort" not in request for request in second.requests + third.requests)
        found = records(tmp_path / "out")
        costs = {
            call["judge"]: call["cost"]
            for record in found
            for layer in record["layers"]
            for review in layer
            for call in review["calls"]
        }
        assert costs == {"a": None, "b/c:free": str(Decimal(100 + 2 * 10) / 10**6), "d": None}
        for path in (tmp_path / "out").iterdir():
            assert b"first-key" not in path.read_bytes() and b"second-key" not in path.read_bytes()
        # The folder's own settings go on with it.
        assert judge("run", "--config", "out/config.yaml").returncode == 0


def test_one_model_on_two_servers_is_two_judges_in_the_results(judge, server, tmp_path):
    with Server() as second:
        names = [f"openai:m@{server.url}", f"openai:m@{second.url}"]
        pairs = write_pairs(tmp_path / "p.jsonl", 3)
        done = judge("run", "--judge", *names, "--data", pairs, "--preset", "panel", "--out", "out")
        assert done.returncode == 0, done.stderr
        found = {review["calls"][0]["judge"] for record in records(tmp_path / "out") for review in record["layers"][0]}
        assert found == {f"m@{server.url}", f"m@{second.url}"} and len(server.requests) == len(second.requests) == 6


def test_limits_of_a_judge_go_before_those_of_the_run(judge, server, tmp_path):
    server.manner = vendors.slow(0.05)
    settings = {
        "judge": [{"name": "openai:a", "base_url": server.url, "concurrency": 2}],
        "network": {"preset": "single"},
    }
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(settings))
    done = judge("run", "--config", "c.yaml", "--data", write_pairs(tmp_path / "p.jsonl", 12), "--out", "out")
    assert done.returncode == 0 and server.most_at_once == 2


def test_a_prompt_is_not_cut_where_the_context_is_unknown(judge, server, tmp_path):
    pairs = write_pairs(tmp_path / "p.jsonl", 2, response1="word " * 20_000)
    done = judge(
        "run", "--judge", "openai:m", "--base-url", server.url, "--data", pairs, "--out", "out", "--preset", "single"
    )
    assert done.returncode == 0 and "unscored 0" in done.stdout
    assert all("word " * 20_000 in vendors.prompt_of(request) for request in server.requests)


def test_a_server_that_says_its_context_too_late_is_asked_again_and_only_what_it_said_is_kept(judge, server, tmp_path):
    """vLLM answers 500 for its list of models while it loads; the next run must not believe that for ever."""
    entry = {"id": "m", "object": "model", "max_model_len": 4096}
    server.list_models = lambda number: refusal(500, "loading") if number == 0 else Answer({"data": [entry]})
    pairs = write_pairs(tmp_path / "p.jsonl", 6, response1="word " * 20_000)
    words = ["run", "--judge", "openai:m", "--base-url", server.url, "--data", pairs, "--preset", "single"]
    assert judge(*words, "--out", "one", "--concurrency", 1).returncode == 0
    shortened = [record["layers"][0][0]["shortened"] for record in records(tmp_path / "one")]
    assert shortened[0] == 0 and all(shortened[1:]) and server.models_asked == 2
    assert judge(*words, "--out", "two").returncode == 0 and server.models_asked == 2


@pytest.mark.parametrize("kind", ["context", "moderated"])
def test_a_refusal_of_a_kind_is_a_failure_of_that_kind(kind):
    def reply(_):
        raise CallError("the server's words", kind=kind)

    judgement = judged(Network(depth=1, roles=("A",)), FakeJudge(reply))
    failures = [item for layer in judgement.layers for item in layer]
    assert {(item.kind, item.reason) for item in failures} == {(kind, "the server's words")}


def test_a_context_that_a_judge_is_given_goes_before_what_its_server_says(server):
    import asyncio

    server.models = [{"id": "m", "context_length": 1000}]
    assert asyncio.run(judge_of(server).abilities()).context == 1000
    assert asyncio.run(judge_of(server, context=500).abilities()).context == 500
    assert asyncio.run(judge_of(server, "openai:gpt-4o").abilities()).context == 128_000
    assert asyncio.run(judge_of(server, "openai:unheard-of").abilities()).context is None


@pytest.mark.parametrize(
    "listed", [[], {}, {"data": None}, {"data": [3, {"id": "m", "context_length": "many"}]}, "text", None]
)
def test_a_list_of_models_of_any_shape_says_nothing_wrong(server, listed):
    import asyncio

    server.list_models = lambda number: Answer(listed)
    assert asyncio.run(judge_of(server).abilities()).context is None


def test_every_known_model_has_a_date_and_a_source_and_its_own_price():
    prices = Prices()
    for name, known in models().items():
        assert known.source and known.date > "2023" and known.context, name
        assert prices.get(name) is not None
    assert prices.get("gpt-4o-2024-05-13") != prices.get("gpt-4o") == prices.get("gpt-4o-2024-08-06")
    for unlisted in ("gpt-4o-2031-01-01", "gpt-3.5-turbo-9999", "o3-2025-04-16", "openai/gpt-4o", "gpt-4o@2024"):
        assert prices.get(unlisted) is None


def test_thoughts_have_a_price_of_their_own_where_one_is_given(judge, server, tmp_path):
    server.manner = vendors.xai  # 100 + 10 + 1000 thought
    (tmp_path / "prices.yaml").write_text("m: {input: 2, output: 10, reasoning: 5}\n")
    flags = ["--judge", "openai:m", "--base-url", server.url, "--data", write_pairs(tmp_path / "p.jsonl", 1)]
    done = judge("run", *flags, "--preset", "single", "--out", "out", "--prices", "prices.yaml")
    assert done.returncode == 0
    (call,) = records(tmp_path / "out")[0]["layers"][0][0]["calls"]
    assert Decimal(call["cost"]) == Decimal(100 * 2 + 10 * 10 + 1000 * 5) / 10**6
    assert text_for(server.requests[0]) and completion("x").status == 200


@pytest.mark.parametrize(
    ("manner", "more"),
    [
        (vendors.loading(0.6), ()),
        (vendors.limited(40), ()),
        (vendors.limited(40, {"Retry-After": "0.2"}), ()),
        (vendors.slow(0.05), ()),
        (vendors.mistral, ("--seed", 1)),
        (vendors.gemini, ("--seed", 1)),
        (vendors.gemma, ()),
        (vendors.o_series, ()),
        (vendors.deepseek, ()),
        (vendors.old, ()),
    ],
)
def test_no_review_is_lost_to_a_vendors_manners_with_the_default_settings(judge, server, tmp_path, manner, more):
    """The default network and concurrency: 13 calls a sample, 32 in flight."""
    server.manner = manner
    flags = ["--judge", "openai:m", "--base-url", server.url, "--data", write_pairs(tmp_path / "p.jsonl", 8)]
    done = judge("run", *flags, "--out", "out", "--backoff", 0.05, *more)
    assert done.returncode == 0, done.stderr
    found = records(tmp_path / "out")
    assert len(found) == 8
    assert [record["verdict"]["unscored"] for record in found] == [0] * 8
    assert [record["verdict"]["scored"] for record in found] == [12] * 8
