"""A judge behind its cache, its budget, its limits and its retries: a call is paid once or has failed for a reason."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import date
from decimal import Decimal

from evaluators.asking.cache import Cache, key_of
from evaluators.asking.limits import Limits
from evaluators.asking.money import Budget, Price
from evaluators.errors import RunError
from evaluators.judges import Abilities, CallError, Judge, Kind, NoSchemaError
from evaluators.messages import Call, Reply
from evaluators.values import Record, Usage

_ABILITIES_ASKED = 5
"""Times that a server which cannot be asked for its abilities is asked again."""
_HOPELESS = 10
"""Calls that fail for good before any has succeeded, after which the run stops."""


class StoppedError(RunError):
    """Someone asked for an end: no new call is made."""


@dataclass(frozen=True)
class Retries:
    """How a call is tried again: waits of `first_s` x 2^k, with full jitter, or what the server asks for."""

    most: int = 6
    first_s: float = 1.0
    longest_s: float = 60.0
    longest_asked_s: float = 300.0
    """A server that asks for a longer wait has refused the call."""

    def wait_s(self, tried: int, asked_s: float | None) -> float:
        """Before the try after `tried` ones. Jitter keeps calls from returning all at once."""
        backoff = random.uniform(0, min(self.longest_s, self.first_s * 2 ** (tried - 1)))
        return backoff if asked_s is None else asked_s + random.uniform(0, min(1.0, self.first_s))


@dataclass
class Counts:
    """What a judge has done in this run."""

    calls: int = 0
    """Replies that were made, not counting those from the cache."""
    cached: int = 0
    retries: int = 0
    failed: int = 0
    lost: int = 0
    """Tries that ended without an answer (timeouts, dropped connections); a provider may have billed them."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    estimated: int = 0
    """Calls whose tokens are our estimate, because the server reported none."""
    cost: Decimal = field(default_factory=Decimal)


@dataclass(frozen=True)
class Answer:
    """A reply with its record, or why there is none."""

    reply: Reply | None
    record: Record
    reason: str | None = None
    kind: Kind = "call"
    """Of the failure."""


class Caller:
    """Asks one judge, for everyone in this process."""

    def __init__(
        self,
        judge: Judge,
        limits: Limits,
        *,
        cache: Cache | None,
        refresh: bool,
        price: Price | None,
        budget: Budget,
        retries: Retries,
        stop: asyncio.Event,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.judge = judge
        self.counts = Counts()
        self.price = price
        self._limits = limits
        self._cache = cache if judge.worth_caching else None
        self._refresh = refresh
        self._budget = budget
        self._retries = retries
        self._stop = stop
        self._say = say
        self._told: set[str] = set()
        self._flying: dict[str, asyncio.Future[Answer]] = {}
        self._abilities: asyncio.Future[Abilities] | None = None
        self._unanswered = 0
        self.schema: bool | None = None
        """Whether the judge took a JSON schema in this run; None: not known yet."""

    async def ask(self, call: Call) -> Answer:
        """The reply, from the cache or from the judge.

        Raises:
            NoSchemaError: the server follows no schema; ask without.
            RunError: no call can be made any more: asked to stop, budget, key, model, outage.
        """
        key = key_of(self.judge.identity, self.judge.coordinates(call), call)
        if (cached := self._look_up(key)) is not None:
            return cached
        if (flying := self._flying.get(key)) is not None:
            answer = await asyncio.shield(flying)
            return Answer(answer.reply, _free(answer.record), answer.reason, answer.kind)
        future = self._flying[key] = asyncio.get_running_loop().create_future()
        try:
            answer = await self._make(key, call)
        except BaseException as error:
            future.set_exception(error if isinstance(error, Exception) else StoppedError("cancelled"))
            future.exception()  # so that nobody need have waited for it
            raise
        else:
            future.set_result(answer)
            return answer
        finally:
            del self._flying[key]

    async def abilities(self) -> Abilities:
        """What the judge can do. What it said is kept in the cache, so that a run from the cache needs no server; that
        it said nothing is not, and a server that could not be asked is asked again with the next questions.
        """
        if self._abilities is None:
            self._abilities = asyncio.ensure_future(self._find_abilities())
        found = await asyncio.shield(self._abilities)
        if not found.answered and self._unanswered < _ABILITIES_ASKED:
            self._unanswered += 1
            self._abilities = None
        return found if self.schema is None else replace(found, structured=self.schema)

    async def _find_abilities(self) -> Abilities:
        kept = None if self._cache is None or self._refresh else self._cache.abilities(self.judge.identity)
        if kept is not None and kept.get("context"):
            return Abilities(context=kept["context"])
        found = await self.judge.abilities()
        if self._cache is not None and found.context is not None:
            self._cache.put_abilities(self.judge.identity, {"context": found.context, "date": str(date.today())})
        return found

    def without_schema(self) -> None:
        """For the rest of the run, no schema is sent to this judge."""
        if self.schema is not False:
            self.schema = False
            self._say(f"{self.judge.name} takes no JSON schema: it is asked for text from now on")

    def knows(self, call: Call) -> bool:
        """Whether the reply is in the cache."""
        if self._cache is None or self._refresh:
            return False
        return self._cache.get(key_of(self.judge.identity, self.judge.coordinates(call), call)) is not None

    def _look_up(self, key: str) -> Answer | None:
        if self._cache is None or self._refresh or (reply := self._cache.get(key)) is None:
            return None
        return self._from_cache(key, reply)

    def _from_cache(self, key: str, reply: Reply) -> Answer:
        self.counts.cached += 1
        return Answer(reply, Record(key, self.judge.name, reply.text, reply.usage, True, None, *_beside(reply)))

    async def _make(self, key: str, call: Call) -> Answer:
        if self._stop.is_set():
            raise StoppedError("asked to stop")
        if self._cache is None:
            return await self._try(key, call)
        if (reply := await self._cache.claim(key)) is not None and not self._refresh:
            return self._from_cache(key, reply)
        answer = None
        try:
            answer = await self._try(key, call)
            return answer
        finally:
            if answer is None or answer.reply is None:
                self._cache.claims.release(key)  # a reply that is kept has let go of it already

    async def _try(self, key: str, call: Call) -> Answer:
        used = Usage(0, 0)
        for tried in range(1, self._retries.most + 2):
            if self._stop.is_set() and tried > 1:
                raise StoppedError("asked to stop")
            try:
                reply = await self._once(call)
            except NoSchemaError:
                raise
            except CallError as error:
                used = _sum(used, error.usage)
                asked_s = error.retry_after_s
                too_long = asked_s is not None and asked_s > self._retries.longest_asked_s
                if not error.retry or too_long or tried > self._retries.most:
                    return self._failed(key, error, used, tried)
                self.counts.retries += 1
                if asked_s is not None:
                    self._limits.pause(asked_s)
                await self._sleep(self._retries.wait_s(tried, asked_s))
            else:
                used = _sum(used, reply.usage)
                self.counts.calls += 1
                cost = self._cost(used)
                if self._cache is not None:
                    self._cache.put(key, self.judge.name, reply, cost)
                self._tell(reply, call)
                return Answer(reply, Record(key, self.judge.name, reply.text, used, False, cost, *_beside(reply)))
        raise AssertionError("the last try returns")

    async def _once(self, call: Call) -> Reply:
        asked = sum(self.judge.count_tokens(message.content) for message in call.messages)
        taken = asked + call.sampling.max_tokens
        async with self._limits.slot(taken):
            if self._stop.is_set():
                raise StoppedError("asked to stop")
            worst = Decimal(0)
            if self.price is not None:
                # No tokenizer makes more tokens of a text than it has bytes; messages have a few of their own.
                most = sum(len(message.content.encode()) + 16 for message in call.messages)
                worst = self.price.of(Usage(most, call.sampling.max_tokens))
                await self._budget.reserve(worst)
            usage: Usage | None = None
            try:
                reply = await self.judge.ask(call)
                usage = reply.usage
            except CallError as error:
                usage = error.usage
                if error.kind == "outage":
                    self.counts.lost += 1
                    self._limits.breaker.failed(error.reason)
                else:
                    self._limits.breaker.worked()
                raise
            else:
                self._limits.breaker.worked()
                return reply
            finally:
                cost = self._count(usage)
                if self.price is not None:
                    await self._budget.settle(worst, cost)
                self._limits.used(taken, 0 if usage is None else usage.prompt + usage.completion)
                if self._cache is not None:
                    self._cache.claims.stay_alive()

    def _tell(self, reply: Reply, call: Call) -> None:
        """Say once what is not sent as it was asked for."""
        if call.schema is not None and self.schema is None:
            self.schema = True
        for what in set(reply.adapted) - self._told:
            self._told.add(what)
            self._say(f"{self.judge.name}: asked with {what}, because the server wants it so")

    def _count(self, usage: Usage | None) -> Decimal:
        if usage is None:
            return Decimal(0)
        self.counts.prompt_tokens += usage.prompt
        self.counts.completion_tokens += usage.completion
        self.counts.estimated += usage.estimated
        cost = Decimal(0) if self.price is None else self.price.of(usage)
        self.counts.cost += cost
        return cost

    def _cost(self, usage: Usage) -> str | None:
        return None if self.price is None else str(self.price.of(usage))

    def _failed(self, key: str, error: CallError, used: Usage, tried: int) -> Answer:
        self.counts.failed += 1
        if not self.counts.calls + self.counts.cached and self.counts.failed >= _HOPELESS:
            raise RunError(f"{self.judge.name}: the first {_HOPELESS} calls all failed, the last with: {error.reason}")
        reason = error.reason if tried == 1 else f"{error.reason} (tried {tried} times)"
        billed = used if used != Usage(0, 0) else None
        cost = None if billed is None else self._cost(billed)
        return Answer(None, Record(key, self.judge.name, None, billed, cached=False, cost=cost), reason, error.kind)

    async def _sleep(self, seconds: float) -> None:
        """Wait, but no longer than until someone asks to stop."""
        try:
            await asyncio.wait_for(self._stop.wait(), seconds)
        except TimeoutError:
            return


def _sum(one: Usage, other: Usage | None) -> Usage:
    if other is None:
        return one
    return Usage(
        one.prompt + other.prompt,
        one.completion + other.completion,
        one.cached_prompt + other.cached_prompt,
        one.estimated or other.estimated,
        one.reasoning + other.reasoning,
    )


def _free(record: Record) -> Record:
    """The same call, asked for twice at once, is paid once."""
    return replace(record, cached=True, cost=None)


def _beside(reply: Reply) -> tuple[str, tuple[str, ...]]:
    """What a record keeps of a reply beside its text."""
    return reply.thoughts, reply.adapted
