"""A judge that answers by a function and remembers every call; and a network around it, without files or processes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from evaluators.asking.breaker import Breaker
from evaluators.asking.cache import Cache
from evaluators.asking.caller import Caller, Retries
from evaluators.asking.ledger import Ledger
from evaluators.asking.limits import Limits
from evaluators.asking.money import Budget
from evaluators.asking.rates import Rates
from evaluators.asking.window import Window
from evaluators.judges import Abilities, estimated_tokens
from evaluators.messages import Call, Reply
from evaluators.network import Network
from evaluators.prompts import Prompts
from evaluators.reviewers import Manner, Reviewers
from evaluators.samples import Pair
from evaluators.values import Judgement, Usage

PROMPTS = Prompts()

PAIR = Pair("p", "the query", "the first response", "the second response")


class FakeJudge:
    worth_caching = True
    concurrency: int | None = None

    def __init__(self, reply: Callable[[Call], str | Reply], name: str = "fake", **abilities: object) -> None:
        self.name = self.identity = name
        self.calls: list[Call] = []
        self._reply = reply
        self._abilities = Abilities(**{"structured": False, **abilities})  # type: ignore[arg-type]

    async def ask(self, call: Call) -> Reply:
        self.calls.append(call)
        reply = self._reply(call)
        return reply if isinstance(reply, Reply) else Reply(reply, Usage(10, 5), "stop")

    async def abilities(self) -> Abilities:
        return self._abilities

    def coordinates(self, call: Call) -> tuple[object, ...]:
        return ()

    def count_tokens(self, text: str) -> int:
        return estimated_tokens(text)

    async def close(self) -> None: ...


def limits(concurrency: int = 100, **rates: float) -> Limits:
    """Those of a server that takes as much, given up after a minute."""
    stop = asyncio.Event()
    taken = Rates(rates.get("requests"), rates.get("tokens"))
    return Limits(Window(concurrency, stop), taken, Breaker(50, 60, stop, rest_s=0.01), stop)


def caller(judge: object, cache: Cache | None = None, *, bound: Limits | None = None, **more: object) -> Caller:
    """A judge behind everything, without a budget."""
    settings = {
        "cache": cache,
        "refresh": False,
        "price": None,
        "budget": Budget(None),
        "ledger": Ledger(),
        "retries": Retries(2, 0.0),
        "stop": asyncio.Event(),
    } | more
    return Caller(judge, bound or limits(), **settings)  # type: ignore[arg-type]


def judged(
    network: Network, *judges: FakeJudge, pair: Pair = PAIR, prompts: Prompts | None = None, **manner: object
) -> Judgement:
    """The sample, judged."""

    async def run() -> Judgement:
        callers = [caller(judge, retries=Retries(0)) for judge in judges]
        panel = Reviewers(callers, prompts or PROMPTS, Manner(**manner), network.temperature)  # type: ignore[arg-type]
        return await network.judge(pair, panel)

    return asyncio.run(run())
