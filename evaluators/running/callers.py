"""From settings to callers: each judge behind its own limits, and those of its server and account."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from evaluators.asking.answers import Retries
from evaluators.asking.breaker import Breaker
from evaluators.asking.cache import Cache
from evaluators.asking.caller import Caller
from evaluators.asking.ledger import Ledger
from evaluators.asking.limits import Limits
from evaluators.asking.money import Budget, Price
from evaluators.asking.rates import Rates
from evaluators.asking.window import Window
from evaluators.judges import Judge
from evaluators.running.config import JudgeConfig


def make_callers(
    config: JudgeConfig,
    judges: Sequence[Judge],
    prices: Sequence[Price | None],
    cache: Cache | None,
    budget: Budget,
    ledger: Ledger,
    halt: asyncio.Event,
    say: Callable[[str], None],
) -> list[Caller]:
    """One for each judge; judges of one server and account share its limits."""
    server = config.server
    database = None if cache is None else cache.database
    accounts: dict[str, Limits] = {}
    callers = []
    for spec, judge, known_price in zip(config.judge, judges, prices, strict=True):
        account = getattr(judge, "account", judge.identity)
        if account not in accounts:
            rates = Rates(server.requests_per_minute, server.tokens_per_minute, account=account, database=database)
            breaker = Breaker(
                server.breaker,
                server.give_up,
                halt,
                rest_s=server.backoff,
                name=getattr(judge, "where", judge.name),
                say=say,
            )
            accounts[account] = Limits(Window(server.concurrency, halt, server.backoff), rates, breaker, halt)
        own = []
        if spec.requests_per_minute or spec.tokens_per_minute or spec.concurrency or judge.concurrency:
            rates = Rates(
                spec.requests_per_minute,
                spec.tokens_per_minute,
                account=f"{account} {judge.identity}",
                database=database,
            )
            most = min(
                server.concurrency, spec.concurrency or server.concurrency, judge.concurrency or server.concurrency
            )
            own.append(Limits(Window(most, halt), rates, Breaker(server.breaker, server.give_up, halt), halt))
        callers.append(
            Caller(
                judge,
                accounts[account],
                *own,
                cache=cache,
                refresh=config.caching.refresh,
                price=known_price,
                budget=budget,
                ledger=ledger,
                retries=Retries(server.retries, server.backoff),
                stop=halt,
                say=say,
            )
        )
    return callers
