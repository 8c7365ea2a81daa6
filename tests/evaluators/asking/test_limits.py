"""How fast calls go out. Times are those of a clock that the tests move, or only an order; none is measured."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from evaluators.asking import breaker as breaker_module
from evaluators.asking import rates as rates_module
from evaluators.asking import window as window_module
from evaluators.asking.breaker import Breaker, OutageError
from evaluators.asking.caller import Retries
from evaluators.asking.limits import Limits
from evaluators.asking.rates import Rates
from evaluators.asking.window import Window
from evaluators.judges import CallError
from evaluators.messages import Call, Message, Place, Reply, Sampling
from evaluators.values import Usage
from tests.evaluators.fakes import PAIR, FakeJudge, caller


class Clock:
    """Time that passes only where somebody waits for it: the earliest sleeper is next."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self._sleepers: list[tuple[float, int, asyncio.Event]] = []
        self._number = 0

    def monotonic(self) -> float:
        return self.now_s

    time = monotonic

    async def sleep(self, seconds: float) -> None:
        event = asyncio.Event()
        self._number += 1
        self._sleepers.append((self.now_s + max(0.0, seconds), self._number, event))
        await event.wait()

    async def rest(self, seconds: float, stop: asyncio.Event) -> None:
        if seconds > 0 and not stop.is_set():
            await self.sleep(seconds)

    async def run(self, *works) -> list:
        """All of them to their end; the clock goes on whenever all wait."""
        tasks = [asyncio.ensure_future(work) for work in works]
        while not all(task.done() for task in tasks):
            for _ in range(50):
                await asyncio.sleep(0)
            if self._sleepers:
                self._sleepers.sort()
                at_s, _, event = self._sleepers.pop(0)
                self.now_s = max(self.now_s, at_s)
                event.set()
        return [task.exception() or task.result() for task in tasks]


@pytest.fixture
def clock(monkeypatch) -> Iterator[Clock]:
    found = Clock()
    for module in (window_module, breaker_module, rates_module):
        monkeypatch.setattr(module, "time", found)
    for module in (window_module, breaker_module):
        monkeypatch.setattr(module, "rest", found.rest)
    monkeypatch.setattr("evaluators.asking.limits.time", found)
    monkeypatch.setattr("evaluators.asking.limits.rest", found.rest)
    yield found


def call(number: int = 0, max_tokens: int = 100) -> Call:
    return Call((Message("user", f"question {number}"),), Sampling(0.0, max_tokens), Place(PAIR, "review"))


class Server(FakeJudge):
    """Takes 0.1 s for a reply and `a_second` calls in any second; refuses the others at once."""

    def __init__(self, clock: Clock, a_second: float = 1e9, asks_s: float | None = None) -> None:
        super().__init__(lambda _: "Score of Assistant 1: 8\nScore of Assistant 2: 6")
        self.clock, self._a_second, self._asks_s = clock, a_second, asks_s
        self.taken_s: list[float] = []
        self.refused_s: list[float] = []

    async def ask(self, call: Call) -> Reply:
        now_s = self.clock.now_s
        if sum(at_s > now_s - 1 for at_s in self.taken_s) >= self._a_second:
            self.refused_s.append(now_s)
            raise CallError("HTTP 429: too many", kind="rate", retry_after_s=self._asks_s)
        self.taken_s.append(now_s)
        await self.clock.sleep(0.1)
        return await super().ask(call)


def limits(concurrency: int = 32, requests: float | None = None, tokens: float | None = None, **more) -> Limits:
    stop = asyncio.Event()
    breaker = Breaker(more.get("threshold", 8), more.get("give_up_s", 300.0), stop, say=more.get("say", print))
    return Limits(Window(concurrency, stop), Rates(requests, tokens), breaker, stop)


@pytest.mark.parametrize("asks_s", [None, 0.5])
@pytest.mark.parametrize("a_second", [2, 8, 50])
def test_a_rate_limit_costs_no_review_and_few_refusals(clock, a_second, asks_s):
    server = Server(clock, a_second, asks_s)

    async def run():
        asked = caller(server, bound=limits(), retries=Retries(0))
        return await clock.run(*(asked.ask(call(number)) for number in range(200)))

    answers = asyncio.run(run())
    assert all(answer.reply is not None for answer in answers)
    assert len(server.refused_s) < 100
    # Not much slower than the server would allow.
    assert server.taken_s[-1] - server.taken_s[0] < 3 * 200 / a_second + 10


def test_a_refusal_holds_up_all_calls_and_they_do_not_return_at_once(clock):
    server = Server(clock)
    first = [True]
    ask = server.ask

    async def once_refused(asked: Call) -> Reply:
        if first:
            first.pop()
            raise CallError("HTTP 429", kind="rate", retry_after_s=60.0)
        return await ask(asked)

    server.ask = once_refused

    async def run():
        bound = limits(4)
        asked = caller(server, bound=bound)
        await clock.run(asked.ask(call(0)), *(asked.ask(call(number)) for number in range(1, 20)))

    began_s = clock.now_s
    asyncio.run(run())
    assert len(server.taken_s) == 20 and min(server.taken_s) >= began_s + 60
    assert len(set(server.taken_s)) == 20


def test_a_server_that_takes_few_calls_at_once_gets_few(clock):
    at_once, most = [0], []

    class Narrow(Server):
        async def ask(self, call: Call) -> Reply:
            if at_once[0] >= 4:
                self.refused_s.append(self.clock.now_s)
                raise CallError("HTTP 429", kind="rate")
            at_once[0] += 1
            most.append(at_once[0])
            try:
                return await Server.ask(self, call)
            finally:
                at_once[0] -= 1

    server = Narrow(clock)

    async def run():
        asked = caller(server, bound=limits(32), retries=Retries(0))
        return await clock.run(*(asked.ask(call(number)) for number in range(400)))

    assert all(answer.reply is not None for answer in asyncio.run(run()))
    assert len(server.refused_s) < 100 and max(most) == 4


def test_the_window_opens_again(clock):
    async def run():
        window = Window(8, asyncio.Event())
        for _ in range(10):
            clock.now_s += 1
            window.refused(clock.now_s, None)
        narrow = window.size
        for _ in range(500):
            window.worked(clock.now_s - 0.1)
        return narrow, window.size

    narrow, wide = asyncio.run(run())
    assert narrow < 0.1 and wide == 8


def test_one_round_of_refusals_narrows_once(clock):
    window = Window(32, asyncio.Event())
    for _ in range(20):
        window.refused(clock.now_s, None)
        clock.now_s += 0.01
        window.refused(clock.now_s - 0.02, None)  # it left before the cut
    assert window.size > 32 / 2**21
    again = Window(32, asyncio.Event())
    left_s = clock.now_s
    clock.now_s += 1
    for _ in range(20):
        again.refused(left_s, None)
    assert again.size == 16


@pytest.mark.parametrize("kind", ["requests", "tokens"])
def test_both_limits_a_minute_are_kept_by_the_calls(clock, kind):
    server = Server(clock)
    used = Usage(40, 60)
    server._reply = lambda _: Reply("Score: 1", used, "stop")  # as many tokens as are taken at most

    async def run():
        bound = limits(32, requests=60) if kind == "requests" else limits(32, tokens=6000)
        asked = caller(server, bound=bound)
        await clock.run(*(asked.ask(call(number, max_tokens=100 - 5)) for number in range(60)))

    asyncio.run(run())
    for second in range(60):
        within = [at_s for at_s in server.taken_s if second <= at_s - server.taken_s[0] < second + 10]
        assert len(within) <= 12


def test_tokens_that_were_taken_and_not_used_are_given_back(clock):
    server = Server(clock)
    server._reply = lambda _: Reply("Score: 1", Usage(5, 5), "stop")

    async def run():
        asked = caller(server, bound=limits(1, tokens=60_000))
        await clock.run(*(asked.ask(call(number, max_tokens=10_000)) for number in range(20)))

    began_s = clock.now_s
    asyncio.run(run())
    # 20 calls of 10 tokens, not of 10,000: seconds, not minutes.
    assert clock.now_s - began_s < 60


def test_limits_of_an_account_hold_over_its_judges_and_each_judge_has_its_own(clock):
    one, two = Server(clock), Server(clock)

    async def run():
        shared = limits(32, requests=120)
        narrow = limits(1)
        asked = [caller(one, bound=shared), caller(two, bound=shared)]
        strict = FakeCaller(two, shared, narrow)
        await clock.run(*(asked[number % 2].ask(call(number)) for number in range(40)), strict.ask(call(99)))

    asyncio.run(run())
    taken = sorted([*one.taken_s, *two.taken_s])
    assert len(taken) == 41 and taken[-1] - taken[0] >= (41 - 1 - 2) / 2


def FakeCaller(judge, shared, own):
    made = caller(judge, bound=shared)
    made._own = (own,)
    return made


def test_an_open_breaker_lets_one_call_through_at_a_time(clock):
    at_once, most = [0], []

    class Down(Server):
        async def ask(self, call: Call) -> Reply:
            at_once[0] += 1
            most.append(at_once[0])
            await self.clock.sleep(1.0)
            at_once[0] -= 1
            raise CallError("connection: refused", kind="outage")

    told: list[str] = []

    async def run():
        asked = caller(Down(clock), bound=limits(16, give_up_s=60.0, threshold=8, say=told.append), retries=Retries(99))
        return await clock.run(*(asked.ask(call(number)) for number in range(16)))

    # The clock knows nothing of the breaker's own rest, which waits for events; it must not last.
    found = asyncio.run(asyncio.wait_for(run_with_short_rests(run), 60))
    assert any(isinstance(item, OutageError) for item in found)
    assert most[:16] == list(range(1, 17)) and set(most[24:]) == {1}
    assert len(told) == 1 and "it is tried again for up to 60 s (--give-up)" in told[0]


async def run_with_short_rests(run):
    async def short(self) -> None:
        await asyncio.sleep(0)

    before, Breaker._rest = Breaker._rest, short
    try:
        return await run()
    finally:
        Breaker._rest = before


def test_retries_of_calls_without_an_answer_end_with_the_server(clock):
    """Waits are cut to what is left until the server is given up: nobody sleeps beyond it."""

    class Down(Server):
        async def ask(self, call: Call) -> Reply:
            raise CallError("connection: refused", kind="outage")

    async def run():
        asked = caller(Down(clock), bound=limits(4, give_up_s=5.0), retries=Retries(6, 1000.0))
        return await clock.run(asked.ask(call()))

    began_s = clock.now_s
    (found,) = asyncio.run(run())
    assert isinstance(found, OutageError) and "does not answer" in str(found)
    assert clock.now_s - began_s == pytest.approx(5.0, abs=0.01)


@pytest.mark.parametrize("others", [True, False])
def test_a_long_rest_ends_the_run_only_where_nothing_else_works(clock, others):
    server = Server(clock)
    ask = server.ask

    async def sometimes(asked: Call) -> Reply:
        if "question 0" in asked.messages[0].content and clock.now_s < 1100:
            await clock.sleep(0.05)
            raise CallError("HTTP 429", kind="rate", retry_after_s=86400.0)
        return await ask(asked)

    server.ask = sometimes

    async def run():
        asked = caller(server, bound=limits(4))
        return await clock.run(*(asked.ask(call(number)) for number in range(60 if others else 1)))

    found = asyncio.run(run())
    if others:
        assert all(answer.reply is not None for answer in found)
    else:
        assert isinstance(found[0], OutageError) and "asks to wait 86,400 s" in str(found[0])


def test_cancelled_waits_leave_the_queue_and_places_are_free_again():
    async def run():
        window = Window(1, asyncio.Event())

        async def hold(until: asyncio.Event) -> None:
            async with window.place():
                await until.wait()

        first, last = asyncio.Event(), asyncio.Event()
        tasks = [asyncio.create_task(hold(event)) for event in (first, last, last)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.sleep(0)
        first.set()  # the place goes to the third at once, which is cancelled before it runs
        await asyncio.sleep(0)
        tasks[2].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        last.set()
        await asyncio.wait_for(hold(last), 30)

    asyncio.run(run())
