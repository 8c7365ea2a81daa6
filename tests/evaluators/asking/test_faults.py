"""Against a real server that fails on a schedule: nothing is lost, nothing is paid twice, no key is told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from decimal import Decimal
from email.utils import formatdate
from pathlib import Path

import pytest

from tests.evaluators import vendors
from tests.evaluators.conftest import KEY, records, write_pairs
from tests.evaluators.server import Server

PRICES = "m: {input: 3, output: 7.5}\n"
CALL_USD = (100 * Decimal(3) + 10 * Decimal("7.5")) / 1_000_000
CALLS = 13
"""1 + 2 n L for the server's three roles and two layers."""
FAST = ("--backoff", 0.01, "--structured", "off")


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    path = tmp_path / "prices.yaml"
    path.write_text(PRICES)
    return path


def flags(server: Server, pairs: Path, out: str = "out", *more: object) -> list[object]:
    return ["run", "--data", pairs, "--judge", "openai:m", "--base-url", server.url, "--out", out, *FAST, *more]


def assert_no_key(folder: Path, *texts: str) -> None:
    for text in texts:
        assert KEY not in text
    for path in folder.rglob("*"):
        if path.is_file():
            assert KEY.encode() not in path.read_bytes(), path


def test_every_kind_of_fault_is_survived_and_paid_for_once(judge, server, pairs, prices, tmp_path):
    server.faults = {
        1: {"status": 429, "headers": {"Retry-After": "0.3"}},
        3: {"status": 429},
        5: {"status": 500},
        7: {"drop": True},
        9: {"cut": True},
        11: {"text": ""},
        13: {"no_choices": True},
        15: {"hang": 3},
        17: {"slow": 3},
        19: {"status": 503, "headers": {"retry-after-ms": "50"}},
        21: {"status": 429, "headers": {"Retry-After": formatdate(time.time() + 1, usegmt=True)}},
    }
    done = judge(*flags(server, pairs, "out", "--prices", prices, "--timeout", 1.5, "--concurrency", 4))
    assert done.returncode == 0, done.stderr
    found = records(tmp_path / "out")
    assert sorted(record["id"] for record in found) == ["s0", "s1", "s2", "s3"]
    assert all(record["verdict"]["winner"] == 0 and record["verdict"]["unscored"] == 0 for record in found)
    # Every prompt was answered once, but for the two whose answers were useless and were billed all the same.
    useless = 2
    prompts = server.delivered
    assert len(prompts) == 4 * CALLS + useless and len(set(prompts)) == 4 * CALLS
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert Decimal(metrics["spent"]["cost"]) == CALL_USD * len(prompts)
    assert sum(Decimal(record["spent"]["cost"]) for record in found) == CALL_USD * len(prompts)
    by_layer = [Decimal(spent["cost"]) for spent in metrics["by_layer"].values()]
    assert sum(by_layer) == CALL_USD * len(prompts) and len(by_layer) == 3
    assert_no_key(tmp_path, done.stdout, done.stderr)
    again = judge(*flags(server, pairs, "other", "--prices", prices))
    assert again.returncode == 0 and len(server.delivered) == len(prompts)
    assert "0 made, 52 from the cache" in again.stdout


def test_retry_after_is_a_rest_for_all_calls(judge, server, tmp_path):
    pairs = write_pairs(tmp_path / "p.jsonl", 3)
    server.faults = {0: {"status": 429, "headers": {"Retry-After": "1"}}}
    done = judge(*flags(server, pairs, "out", "--preset", "single", "--concurrency", 1))
    assert done.returncode == 0
    assert min(later - server.times[0] for later in server.times[1:]) >= 1


def test_a_longer_wait_than_is_bearable_stops_the_run_and_costs_no_review(judge, server, tmp_path):
    server.faults = {0: {"status": 429, "headers": {"Retry-After": "86400"}}}
    words = flags(server, write_pairs(tmp_path / "p.jsonl", 1), "out", "--preset", "single")
    done = judge(*words)
    assert done.returncode == 1 and "asks to wait 86,400 s" in done.stderr and "the same command goes on" in done.stderr
    assert records(tmp_path / "out") == []
    server.faults = {}
    assert judge(*words).returncode == 0
    assert [record["verdict"]["winner"] for record in records(tmp_path / "out")] == [1]


def test_a_server_of_so_many_calls_a_second_loses_none_at_the_default_concurrency(judge, server, tmp_path):
    server.manner = vendors.limited(20)
    pairs = write_pairs(tmp_path / "p.jsonl", 25)
    words = ("run", "--data", pairs, "--judge", "openai:m", "--base-url", server.url, "--structured", "off")
    done = judge(*words, "--preset", "faireval", "--retries", 0, "--out", "out")
    assert done.returncode == 0, done.stderr
    assert "reviews     150, unscored 0" in done.stdout
    assert len(server.requests) < 2 * 150


@pytest.mark.parametrize("usage", [None, {"prompt_tokens": -5, "completion_tokens": 3, "total_tokens": -2}, {}])
def test_usage_that_cannot_be_true_is_estimated_and_marked(judge, server, tmp_path, usage):
    server.faults = {-1: {"usage": usage}}
    done = judge(*flags(server, write_pairs(tmp_path / "p.jsonl", 1), "out", "--preset", "single"))
    assert done.returncode == 0, done.stderr
    (call,) = records(tmp_path / "out")[0]["layers"][0][0]["calls"]
    assert call["usage"]["estimated"] and call["usage"]["prompt"] > 50


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ({"status": 401, "message": f"Incorrect API key provided: {KEY}"}, "refuses the key"),
        ({"status": 403}, "refuses the key"),
        ({"status": 404, "message": "the model `m` does not exist"}, "check the model's name"),
        ({"status": 429, "code": "insufficient_quota", "message": "insufficient_quota"}, "no money left"),
    ],
)
def test_what_no_retry_can_mend_stops_at_once(judge, server, pairs, tmp_path, fault, told):
    server.faults = {-1: fault}
    done = judge(*flags(server, pairs, "out", "--concurrency", 2))
    assert done.returncode == 1 and told in done.stderr, done.stderr
    assert done.stderr.startswith("error: ") and "Traceback" not in done.stderr
    assert len(server.requests) <= 4
    assert_no_key(tmp_path, done.stdout, done.stderr)


def test_a_server_that_is_down_is_probed_and_then_given_up(judge, server, pairs):
    server.faults = {-1: {"drop": True}}
    done = judge(*flags(server, pairs, "out", "--breaker", 3, "--give-up", 0.5, "--retries", 1000))
    assert done.returncode == 1 and "does not answer" in done.stderr
    # After the breaker has opened, calls go out one at a time and seldom.
    assert len(server.requests) < 30


def test_a_server_that_comes_back_finds_the_run_going_on(judge, server, pairs):
    server.faults = {number: {"status": 503} for number in range(10)}
    done = judge(*flags(server, pairs, "out", "--breaker", 3, "--retries", 20))
    assert done.returncode == 0 and "unscored 0" in done.stdout


def test_schema_where_the_server_takes_one_and_text_where_not(judge, server, pairs, tmp_path):
    command = [word for word in flags(server, pairs, "json") if word not in ("--structured", "off")]
    assert judge(*command).returncode == 0
    assert all("response_format" in request for request in server.requests)
    server.schema = False
    command[command.index("json")] = "text"
    done = judge(*command, "--refresh")
    assert done.returncode == 0 and "unscored 0" in done.stdout
    assert "response_format" not in server.requests[-1]
    # That it takes none is remembered: a run from the cache asks nothing.
    before = len(server.requests)
    command[command.index("text")] = "again"
    assert judge(*command).returncode == 0 and len(server.requests) == before


def test_servers_that_want_another_name_for_the_limit(judge, server, pairs):
    server.faults = {0: {"status": 400, "message": "Use 'max_completion_tokens' instead of 'max_tokens'"}}
    done = judge(*flags(server, pairs, "out", "--concurrency", 1))
    assert done.returncode == 0 and "max_completion_tokens" in server.requests[-1]


def test_the_budget_is_never_passed_and_the_run_goes_on_later(judge, server, pairs, prices, tmp_path):
    budget = CALL_USD * 40  # the worst case of a call is far above what it costs
    more = ("--prices", prices, "--max-tokens", 60)
    done = judge(*flags(server, pairs, "out", *more, "--budget", budget))
    assert done.returncode == 75, done.stderr
    paid = len(server.delivered)
    assert 0 < CALL_USD * paid <= budget
    assert "--budget" in done.stdout and "goes on" in done.stdout
    done = judge(*flags(server, pairs, "out", *more, "--budget", 1))
    assert done.returncode == 0
    assert len(server.delivered) == 4 * CALLS == len(set(server.delivered))
    assert len(records(tmp_path / "out")) == 4


def test_killed_at_any_moment_and_started_again_pays_for_nothing_twice(judge, server, environment, tmp_path):
    pairs = write_pairs(tmp_path / "p.jsonl", 12)
    server.latency_s = 0.02
    command = [sys.executable, "-m", "lab.cli", "judge", *map(str, flags(server, pairs, "out", "--concurrency", 4))]
    for calls in (30, 80):
        process = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=subprocess.DEVNULL)
        while len(server.delivered) < calls and process.poll() is None:
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    time.sleep(0.2)
    verdicts = tmp_path / "out" / "verdicts.jsonl"
    verdicts.write_bytes(verdicts.read_bytes() + b'{"id": "s11", "verd')
    assert judge(*flags(server, pairs, "out", "--concurrency", 4)).returncode == 0
    assert sorted(record["id"] for record in records(tmp_path / "out")) == sorted(f"s{n}" for n in range(12))
    assert len(set(server.delivered)) == 12 * CALLS
    # Only what was in flight when it was killed may have been paid for in vain.
    assert len(server.delivered) <= 12 * CALLS + 2 * 4


def test_two_processes_on_one_cache_share_every_call(server, environment, tmp_path):
    pairs = write_pairs(tmp_path / "p.jsonl", 6)
    server.latency_s = 0.03
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "lab.cli", "judge", *map(str, flags(server, pairs, out))],
            env=environment,
            cwd=tmp_path,
        )
        for out in ("one", "two")
    ]
    assert [process.wait(60) for process in started] == [0, 0]
    assert len(server.delivered) == len(set(server.delivered)) == 6 * CALLS
    verdicts = [{record["id"]: record["verdict"] for record in records(tmp_path / out)} for out in ("one", "two")]
    assert verdicts[0] == verdicts[1] and len(verdicts[0]) == 6


@pytest.mark.parametrize("cached", [True, False])
def test_ctrl_c_finishes_what_is_in_flight_and_saves(judge, server, environment, tmp_path, cached):
    pairs = write_pairs(tmp_path / "p.jsonl", 30)
    server.latency_s = 0.1
    words = flags(server, pairs, "out", "--concurrency", 3, *([] if cached else ["--no-cache"]))
    command = [sys.executable, "-m", "lab.cli", "judge", *map(str, words)]
    process = subprocess.Popen(
        command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while len(server.delivered) < 20:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    told, errors = process.communicate(timeout=60)
    assert process.returncode == 75, errors
    assert "stopping" in errors and "Traceback" not in errors and "goes on" in told
    assert len(server.delivered) == len(server.requests)
    if cached:
        server.latency_s = 0
        assert judge(*words).returncode == 0
        assert len(server.delivered) == len(set(server.delivered)) == 30 * CALLS
    else:
        assert len(server.delivered) == CALLS * len(records(tmp_path / "out"))


def test_a_second_ctrl_c_ends_at_once(server, environment, tmp_path):
    pairs = write_pairs(tmp_path / "p.jsonl", 3)
    server.faults = {-1: {"hang": 20}}
    command = [sys.executable, "-m", "lab.cli", "judge", *map(str, flags(server, pairs))]
    process = subprocess.Popen(command, env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    while not server.requests:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    assert "stopping" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 130


def test_no_more_calls_at_once_than_allowed(judge, server, pairs):
    server.latency_s = 0.05
    assert judge(*flags(server, pairs, "out", "--concurrency", 3)).returncode == 0
    assert server.most_at_once == 3


def test_a_key_is_not_needed_for_a_server_of_ones_own(judge, server, pairs, environment):
    del environment["OPENAI_API_KEY"]
    assert judge(*flags(server, pairs)).returncode == 0
    done = judge("run", "--data", pairs, "--judge", "openai:m", "--out", "x")
    assert done.returncode == 2 and "OPENAI_API_KEY" in done.stderr


def test_judges_of_one_server_and_account_share_its_limits(judge, server, tmp_path):
    server.latency_s = 0.05
    pairs = write_pairs(tmp_path / "p.jsonl", 4)
    words = ["run", "--data", pairs, "--judge", "openai:a", "openai:b", "--base-url", server.url, "--structured", "off"]
    assert judge(*words, "--preset", "panel", "--concurrency", 3, "--out", "out").returncode == 0
    assert len(server.requests) == 16 and server.most_at_once == 3


def test_requests_a_minute_are_kept_by_the_command(judge, server, tmp_path):
    pairs = write_pairs(tmp_path / "p.jsonl", 4)
    words = ["run", "--data", pairs, "--judge", "openai:a", "openai:b", "--base-url", server.url, "--structured", "off"]
    flags = ("--preset", "panel", "--out", "out", "--requests-per-minute", 120)
    assert judge(*words, *flags).returncode == 0
    # Half a second each, over both judges; a second's worth may go at once.
    assert len(server.times) == 16 and server.times[-1] - server.times[0] >= (16 - 1 - 2) * 0.5 - 0.1
