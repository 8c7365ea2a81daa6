"""What a folder has cost: over all starts, whatever became of the samples and whatever an architecture returns."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from decimal import Decimal

import pytest

from evaluators import presets
from evaluators.asking.ledger import LEDGER, Bill, Ledger, Spent, read_bill
from evaluators.errors import RunError
from evaluators.network import Network
from evaluators.values import Usage
from tests.evaluators.conftest import records, write_pairs

PRICES = "m: {input: 3, output: 7.5}\n"
CALL_USD = (100 * Decimal(3) + 10 * Decimal("7.5")) / 1_000_000


@pytest.fixture
def words(server, tmp_path):
    (tmp_path / "prices.yaml").write_text(PRICES)

    def made(count, *more, out="out"):
        pairs = write_pairs(tmp_path / "p.jsonl", count)
        return (
            *("run", "--data", pairs, "--judge", "openai:m", "--base-url", server.url, "--out", out),
            *(
                "--prices",
                tmp_path / "prices.yaml",
                "--structured",
                "off",
                "--backoff",
                0.01,
                "--max-tokens",
                60,
                *more,
            ),
        )

    return made


def spent(folder):
    return json.loads((folder / "metrics.json").read_text())["spent"]


def test_a_budget_is_the_folders_over_all_starts(judge, server, words, tmp_path):
    budget = CALL_USD * 30
    codes = []
    for _ in range(6):
        codes.append(judge(*words(10, "--budget", budget)).returncode)
        assert CALL_USD * len(server.delivered) <= budget
    assert codes == [75] * 6
    assert Decimal(spent(tmp_path / "out")["cost"]) == CALL_USD * len(server.delivered)
    # Another folder has a budget of its own, and takes what is paid from the cache.
    assert judge(*words(10, "--budget", budget, out="other")).returncode == 75
    assert len(server.delivered) > 30


def test_the_money_of_a_run_that_was_interrupted_stands_in_its_folder(judge, server, environment, words, tmp_path):
    server.latency_s = 0.05
    command = [sys.executable, "-m", "lab.cli", "judge", *map(str, words(8, "--concurrency", 2))]
    process = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    while len(server.delivered) < 10:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    told, _ = process.communicate(timeout=60)
    paid = len(server.delivered)
    assert process.returncode == 75 and f"calls       {paid} made" in told
    server.latency_s = 0
    done = judge(*words(8))
    assert done.returncode == 0
    assert len(server.delivered) == 8 * 13
    assert f"calls       {8 * 13} made" in done.stdout and f"{CALL_USD * 8 * 13:.4f} USD" in done.stdout
    assert Decimal(spent(tmp_path / "out")["cost"]) == CALL_USD * 8 * 13


@pytest.mark.parametrize("calls", [5, 25])
def test_the_money_of_a_run_that_was_killed_stands_in_its_folder(judge, server, environment, words, tmp_path, calls):
    server.latency_s = 0.02
    command = [sys.executable, "-m", "lab.cli", "judge", *map(str, words(6, "--concurrency", 1))]
    process = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=subprocess.DEVNULL)
    while len(server.delivered) < calls:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(0.2)
    paid = len(server.delivered)
    ledger = tmp_path / "out" / LEDGER
    # One call may have been on its way back when the process was killed.
    assert paid - 1 <= read_bill(ledger).total.calls <= paid
    known = read_bill(ledger).total.cost
    ledger.write_bytes(ledger.read_bytes() + b'{"judge": "m", "lay')
    server.latency_s = 0
    before = len(server.delivered)
    assert judge(*words(6)).returncode == 0
    assert Decimal(spent(tmp_path / "out")["cost"]) == known + CALL_USD * (len(server.delivered) - before)


def test_a_run_that_ends_by_an_error_tells_what_it_paid(judge, server, words, tmp_path):
    server.faults = {number: {"status": 401} for number in range(7, 1000)}
    done = judge(*words(5, "--concurrency", 1))
    assert done.returncode == 1 and "calls       7 made" in done.stdout
    assert Decimal(spent(tmp_path / "out")["cost"]) == 7 * CALL_USD
    server.faults = {}
    assert judge(*words(5)).returncode == 0
    assert Decimal(spent(tmp_path / "out")["cost"]) == CALL_USD * len(server.delivered) == CALL_USD * 5 * 13


def test_what_an_architecture_does_not_return_is_billed_all_the_same(judge, server, words, tmp_path, monkeypatch):
    class Forgetful(Network):
        async def judge(self, pair, reviewers):
            await Network(depth=1).judge(pair, reviewers)
            return await Network(depth=1, roles=()).judge(pair, reviewers)

    monkeypatch.setitem(presets.architectures._things, "forgetful", lambda judges: Forgetful())
    assert judge(*words(3, "--preset", "forgetful")).returncode == 0
    cost = CALL_USD * len(server.delivered)
    assert len(server.delivered) == 3 * (7 + 2)
    assert Decimal(spent(tmp_path / "out")["cost"]) == cost
    assert sum(Decimal(record["spent"]["cost"]) for record in records(tmp_path / "out")) == cost
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    for parts in (metrics["by_judge"], metrics["by_layer"]):
        assert sum(Decimal(part["cost"]) for part in parts.values()) == cost


def test_failed_role_calls_are_billed_once(judge, server, words, tmp_path):
    roles = server.reply
    server.reply = lambda body: "" if "From which perspectives" in str(body["messages"]) else roles(body)
    done = judge(*words(2, "--retries", 2))
    assert done.returncode == 1  # the reply is empty: billed, and of no use
    assert len(server.delivered) == 6
    (spending,) = json.loads((tmp_path / "out" / "metrics.json").read_text())["by_layer"].values()
    assert Decimal(spending["cost"]) == 6 * CALL_USD == Decimal(spent(tmp_path / "out")["cost"])
    assert sum(Decimal(record["spent"]["cost"]) for record in records(tmp_path / "out")) == 6 * CALL_USD


def test_a_sweep_bills_failed_role_calls_once(judge, server, words, tmp_path):
    roles = server.reply
    fails = iter([""])
    server.reply = lambda body: (
        (next(fails, None) if "From which perspectives" in str(body["messages"]) else None) or roles(body)
    )
    server.faults = {0: {"status": 400, "message": "no"}}
    done = judge("sweep", *words(2)[1:], "--widths", 2, "--depths", 1, "--concurrency", 1)
    assert done.returncode == 0, done.stderr
    (point,) = json.loads((tmp_path / "out" / "sweep.json").read_text())["points"]
    assert Decimal(point["cost"]) == CALL_USD * len(server.delivered)


def test_estimated_usage_is_told(judge, server, words):
    server.faults = {-1: {"usage": None}}
    done = judge(*words(2, "--preset", "single"))
    assert "(estimated for 2 calls, whose usage the server did not tell)" in done.stdout


def test_show_tells_the_same_as_the_run(judge, server, words, tmp_path):
    done = judge(*words(2, "--preset", "single"))
    shown = judge("show", "--out", "out")
    line = next(line for line in done.stdout.splitlines() if line.startswith("calls"))
    assert line.rpartition(",")[0] in shown.stdout
    (tmp_path / "out" / LEDGER).unlink()  # a folder of before there were ledgers
    assert line.rpartition(",")[0] in judge("show", "--out", "out").stdout
    assert judge(*words(3, "--preset", "single")).returncode == 0
    assert Decimal(spent(tmp_path / "out")["cost"]) == 3 * CALL_USD


def test_a_ledger_adds_up_and_is_made_shorter(tmp_path):
    path = tmp_path / LEDGER
    ledger = Ledger(path)
    for number in range(100):
        ledger.tried("a", number % 3, Usage(10, 2, estimated=number == 0), Decimal("0.1"), ended=True)
    ledger.tried("b", 1, None, None, ended=False, lost=True)
    ledger.tried("b", 1, Usage(1, 1), None, ended=True)
    ledger.from_cache("b", 1)
    total = Spent(101, 1, 1001, 201, Decimal("10.0"), 1, 1, 1)
    assert ledger.bill.total == total
    assert read_bill(path).total == Spent(101, 0, 1001, 201, Decimal("10.0"), 1, 1, 1)  # as after kill -9
    ledger.close()
    assert read_bill(path).total == total and len(path.read_text().splitlines()) == 4
    assert Ledger(path).bill.total == total
    assert ledger.bill.by_judge["b"].lost == 1 and set(ledger.bill.by_layer) == {0, 1, 2}
    path.write_text('{"judge": "a", "layer": 0, "calls": 1}\nnonsense\n')
    with pytest.raises(RunError, match="line 2 is no line of a bill"):
        read_bill(path)
    assert Bill().total == Spent()


def test_a_budget_of_a_sweep_is_for_all_its_points(judge, server, words):
    for _ in range(2):
        done = judge("sweep", *words(4)[1:], "--widths", 1, 2, 3, "--depths", 2, "--budget", CALL_USD * 60)
        assert done.returncode == 1 and "--budget" in done.stderr
    assert 30 < len(server.delivered) <= 60
