"""The parts around a call, one by one: cache, claims, rates, budget, prices, probabilities, error mapping."""

from __future__ import annotations

import asyncio
import math
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from evaluators.asking import breaker as breaker_module
from evaluators.asking import rates
from evaluators.asking.breaker import Breaker, OutageError
from evaluators.asking.cache import Cache, key_of
from evaluators.asking.money import Budget, BudgetError, Price, Prices
from evaluators.asking.rates import Rates
from evaluators.errors import ConfigError, RunError
from evaluators.judges import CallError
from evaluators.messages import Call, Message, Place, Reply, Sampling
from evaluators.reading.probabilities import Token, expectation, expected_score
from evaluators.values import Usage
from tests.evaluators.fakes import PAIR, FakeJudge, caller


def call(text: str = "q", **place: object) -> Call:
    return Call((Message("user", text),), Sampling(0.0, 16), Place(PAIR, "review", **place))  # type: ignore[arg-type]


def test_no_torch_until_a_local_judge_is_asked_for_and_nothing_of_training():
    code = (
        "import sys, evaluators.command, evaluators.running.run, evaluators.judges as j; j.judges.names();"
        "print(sorted({'torch', 'transformers', 'openai', 'sklearn'} & set(sys.modules)),"
        "[m for m in sys.modules if m.split('.')[0] in ('lab', 'normalization')])"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "[] []"


@pytest.mark.parametrize(
    "changed",
    [
        Call((Message("user", "other"),), Sampling(0.0, 16), Place(PAIR, "review")),
        Call((Message("system", "q"),), Sampling(0.0, 16), Place(PAIR, "review")),
        Call((Message("user", "q"),), Sampling(0.1, 16), Place(PAIR, "review")),
        Call((Message("user", "q"),), Sampling(None, 16), Place(PAIR, "review")),
        Call((Message("user", "q"),), Sampling(0.0, 17), Place(PAIR, "review")),
        Call((Message("user", "q"),), Sampling(0.0, 16, seed=1), Place(PAIR, "review")),
        Call((Message("user", "q"),), Sampling(0.0, 16), Place(PAIR, "review", index=1)),
        Call((Message("user", "q"),), Sampling(0.0, 16), Place(PAIR, "review"), attempt=1),
        Call((Message("user", "q"),), Sampling(0.0, 16), Place(PAIR, "review"), schema={}),
    ],
)
def test_keys_differ_where_replies_may(changed):
    assert key_of("a", (), changed) != key_of("a", (), call())
    assert key_of("a", (), call()) != key_of("b", (), call()) != key_of("b", (1,), call())
    # Where in the network a call stands is not what a model sees.
    assert key_of("a", (), call(layer=2, neuron=3)) == key_of("a", (), call())


def test_failures_are_not_cached_and_the_same_call_at_once_is_made_once(tmp_path):
    replies = iter([CallError("no"), "yes"])

    def reply(_: Call) -> str:
        found = next(replies)
        if isinstance(found, CallError):
            raise found
        return found

    judge, cache = FakeJudge(reply), Cache(tmp_path / "c")

    async def run() -> None:
        asked = caller(judge, cache)
        failed = await asked.ask(call())
        assert failed.reply is None and failed.reason == "no"
        both = await asyncio.gather(asked.ask(call()), asked.ask(call()))
        assert [answer.reply.text for answer in both if answer.reply] == ["yes", "yes"]
        assert sorted(answer.record.cached for answer in both) == [False, True]

    asyncio.run(run())
    assert len(judge.calls) == 2


def test_refresh_asks_again_and_keeps_the_new_reply(tmp_path):
    numbers = iter("123")
    judge, cache = FakeJudge(lambda _: next(numbers)), Cache(tmp_path / "c")

    async def run(refresh: bool) -> str:
        answer = await caller(judge, cache, refresh=refresh).ask(call())
        assert answer.reply is not None
        return answer.reply.text

    assert [asyncio.run(run(refresh)) for refresh in (False, False, True, False)] == ["1", "1", "2", "2"]


def test_claims_of_dead_processes_do_not_hold(tmp_path):
    cache = Cache(tmp_path / "c")
    code = (
        "import asyncio, os, sys; from pathlib import Path; from evaluators.asking.cache import Cache; "
        "c = Cache(Path(sys.argv[1])); assert asyncio.run(c.claim('k')) is None; os._exit(9)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "c"], env=environment, check=False)
    assert done.returncode == 9
    assert asyncio.run(asyncio.wait_for(cache.claim("k"), 5)) is None


def test_a_file_that_is_no_cache_is_refused(tmp_path):
    (tmp_path / "c").write_bytes(b"not a database, but long enough to be looked at" * 50)
    with pytest.raises(RunError, match="--cache"):
        Cache(tmp_path / "c")


def test_prune(tmp_path):
    cache = Cache(tmp_path / "c")
    for judge in ("a", "a", "b"):
        asyncio.run(cache.put(f"{judge}{len(cache.summary())}{judge}", judge, Reply("x", Usage(1, 1)), None))
    assert cache.prune(before=0.0, judge=None) == 0 and cache.prune(before=None, judge="a") == 2
    assert [(row[0], row[1]) for row in cache.summary()] == [("b", 1)]


@pytest.mark.parametrize("shared", [False, True])
def test_a_rate_spreads_calls_evenly(monkeypatch, tmp_path, shared):
    now = [100.0]
    monkeypatch.setattr(rates.time, "time", lambda: now[0])

    async def run() -> list[float]:
        database = Cache(tmp_path / "c").database if shared else None
        # Two processes of one account share its turns: one every half second, and one second's worth at once.
        each = [Rates(120, None, account="a", database=database) for _ in range(2 if shared else 1)] * 3
        waits = [await rate.take(1000) for rate in (each * 2)[:6]]
        now[0] += 10
        waits.append(await each[0].take(1))
        await each[0].correct(0, requests=4)
        waits.append(await each[-1].take(1))
        return waits

    # 100 s is long after nothing: the burst is of a second, then half a second each; then rest, and 4 units of debt.
    assert asyncio.run(run()) == pytest.approx([0, 0, 0, 0.5, 1.0, 1.5, 0, 1.5])


def test_a_breaker_gives_up_only_after_its_time(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(breaker_module.time, "monotonic", lambda: now[0])
    breaker = Breaker(2, 10, asyncio.Event())
    now[0] = 1
    breaker.failed("a"), breaker.failed("b")
    breaker.worked()
    now[0] = 100
    breaker.failed("c")
    now[0] = 109
    breaker.failed("d")
    now[0] = 110
    with pytest.raises(OutageError, match="3 calls in a row failed, the last with: e"):
        breaker.failed("e")


def test_a_budget_counts_the_worst_case_of_what_is_in_flight():
    async def run() -> None:
        budget = Budget(Decimal("1.00"))
        await budget.reserve(Decimal("0.60"))
        waiting = asyncio.create_task(budget.reserve(Decimal("0.60")))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        await budget.settle(Decimal("0.60"), Decimal("0.30"))
        await waiting
        await budget.settle(Decimal("0.60"), Decimal("0.30"))
        with pytest.raises(BudgetError, match="0.6000 USD spent"):
            await budget.reserve(Decimal("0.41"))
        await budget.reserve(Decimal("0.40"))

    asyncio.run(run())


def test_prices(tmp_path):
    path = tmp_path / "prices.yaml"
    path.write_text("mine: {input: 1, output: 2, cached_input: 0.5}\ngpt-4o-mini: {input: 9, output: 9}\n")
    prices = Prices(path)
    mine = prices.get("mine")
    assert mine is not None
    assert mine.of(Usage(1000, 100, cached_prompt=400)) == Decimal("0.001000") == (600 + 200 + 200) * Decimal("1e-6")
    assert prices.get("gpt-4o") == Price(Decimal("2.5"), Decimal(10), Decimal("1.25"))
    # A snapshot costs what it is listed at, whatever its successor costs; one that is not listed is unpriced.
    assert prices.get("gpt-4o-2024-05-13") == Price(Decimal(5), Decimal(15))
    assert prices.get("gpt-4o-2031-01-01") is None and prices.get("mine-2024-01-01") is None
    assert prices.get("gpt-4o-mini") == Price(Decimal(9), Decimal(9))
    assert prices.get("gpt-4o-audio") is None and prices.get("unheard-of") is None
    for wrong in (
        "mine: 3",
        "mine: {input: 1}",
        "mine: {input: -1, output: 1}",
        "mine: {input: x, output: 1}",
        "[]",
        "{",
    ):
        path.write_text(wrong)
        with pytest.raises(ConfigError, match="--prices"):
            Prices(path)


def test_expected_scores_by_hand():
    logs = {8: math.log(0.5), 6: math.log(0.25), 1: math.log(0.25)}
    assert expectation(logs) == pytest.approx(0.5 * 8 + 0.25 * 6 + 0.25 * 1)
    text = "Score of Assistant 1: 8\nScore of Assistant 2: 6"
    pieces = ["Score of Assistant 1:", " 8", "\nScore of Assistant 2:", " ", "6"]
    tops = [
        {},
        {" 8": math.log(0.6), " 4": math.log(0.2), " no": math.log(0.2)},
        {},
        {},
        {"6": math.log(0.9), "9": math.log(0.1)},
    ]
    tokens = [Token(piece.encode(), top) for piece, top in zip(pieces, tops, strict=True)]
    spans = ((22, 23), (46, 47))
    assert expected_score(text, spans, tokens, (1, 9)) == pytest.approx(((0.6 * 8 + 0.2 * 4) / 0.8, 0.9 * 6 + 0.1 * 9))
    assert expected_score("other", spans, tokens, (1, 9)) is None
    assert expected_score(text, ((21, 22), (46, 47)), tokens, (1, 9)) is None
