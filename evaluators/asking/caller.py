"""A judge behind its cache, its budget, its limits and its retries: a call is paid once or has failed for a reason.

Who lets go of what: `ask` of the future that equal calls in flight wait for, `_make` of the claim in the cache's file,
`_once` of the place in the server's window and of the budget's reserve; each in a `finally` of its own.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import date
from decimal import Decimal

from evaluators.asking.answers import Answer, Counts, Retries, StoppedError, plus
from evaluators.asking.cache import Cache, key_of
from evaluators.asking.ledger import Ledger
from evaluators.asking.limits import Limits
from evaluators.asking.money import Budget, Price
from evaluators.errors import RunError
from evaluators.judges import Abilities, CallError, Judge, NoSchemaError
from evaluators.messages import Call, Reply
from evaluators.storing import clean
from evaluators.values import Record, Usage

_ABILITIES_ASKED = 5
"""Times that a server which cannot be asked for its abilities is asked again."""
_HOPELESS = 10
"""Calls that fail for good before any has succeeded, after which the run stops."""
HOPELESS_QUESTIONS = 20
"""Questions without a reply that can be read, before any with one, after which the run stops."""


class _InternalError(CallError):
    """A judge raised what it should not."""


class Caller:
    """Asks one judge, for everyone in this process."""

    def __init__(
        self,
        judge: Judge,
        limits: Limits,
        *own: Limits,
        cache: Cache | None,
        refresh: bool,
        price: Price | None,
        budget: Budget,
        ledger: Ledger,
        retries: Retries,
        stop: asyncio.Event,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Limits are of the judge's server and account; `own` are this judge's, within them."""
        self.judge = judge
        self.counts = Counts()
        self.price = price
        self._limits = limits
        self._own = own
        self._cache = cache if judge.worth_caching else None
        self._refresh = refresh
        self._budget = budget
        self._ledger = ledger
        self._retries = retries
        self._stop = stop
        self._say = say
        self._told: set[str] = set()
        self._abilities: asyncio.Future[Abilities] | None = None
        self._unanswered = 0
        self.schema: bool | None = None
        """Whether the judge took a JSON schema in this run; None: not known yet."""

    async def ask(self, call: Call) -> Answer:
        """The reply, from the cache or from the judge.

        Raises:
            NoSchemaError: the server follows no schema; ask without.
            RunError: no call can be made any more: asked to stop, budget, key, model, outage, cache.
        """
        key = key_of(self.judge.identity, self.judge.coordinates(call), call)
        if self._cache is None:  # every call is made
            self._check_stop()
            return await self._try(key, call)
        if not self._refresh and (reply := await self._cache.get(key)) is not None:
            return self._from_cache(key, call, reply)
        if (flying := self._cache.flying.get(key)) is not None:
            answer = await asyncio.shield(flying)
            self._ledger.from_cache(self.judge.name, call.place.layer)
            return replace(answer, record=replace(answer.record, cached=True, cost=None))
        future = self._cache.flying[key] = asyncio.get_running_loop().create_future()
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
            del self._cache.flying[key]

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
        kept = None if self._cache is None or self._refresh else await self._cache.abilities(self.judge.identity)
        if kept is not None and kept.get("context"):
            return Abilities(context=kept["context"])
        try:
            found = await self.judge.abilities()
        except RunError:
            raise
        except Exception:
            return Abilities(answered=False)  # the calls will show what is wrong
        if self._cache is not None and found.context is not None:
            await self._cache.put_abilities(self.judge.identity, {"context": found.context, "date": str(date.today())})
        return found

    def without_schema(self) -> None:
        """For the rest of the run, no schema is sent to this judge."""
        if self.schema is not False:
            self.schema = False
            self._say(f"{self.judge.name} takes no JSON schema: it is asked for text from now on")

    async def knows(self, call: Call) -> bool:
        """Whether the reply is in the cache."""
        if self._cache is None or self._refresh:
            return False
        return await self._cache.get(key_of(self.judge.identity, self.judge.coordinates(call), call)) is not None

    def was_read(self) -> None:
        """A question has come to a reply that could be read."""
        self.counts.read += 1

    def was_not_read(self, reason: str) -> None:
        """A question has come to nothing, after all attempts.

        Raises:
            RunError: so have the first ones, all of them: nothing would come of going on.
        """
        self.counts.unread += 1
        if not self.counts.read and self.counts.unread >= HOPELESS_QUESTIONS:
            raise RunError(
                f"{self.judge.name}: of the first {self.counts.unread} questions none came to a reply that can be "
                f"read, the last one: {reason}; what is judged so far shows the replies (depthlab judge show)"
            )

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise StoppedError("asked to stop")

    def _from_cache(self, key: str, call: Call, reply: Reply) -> Answer:
        self.counts.cached += 1
        self._ledger.from_cache(self.judge.name, call.place.layer)
        return Answer(reply, Record(key, self.judge.name, reply.text, reply.usage, True, None, *_beside(reply)))

    async def _make(self, key: str, call: Call) -> Answer:
        assert self._cache is not None
        self._check_stop()
        if (reply := await self._cache.claim(key, refresh=self._refresh)) is not None:
            return self._from_cache(key, call, reply)
        answer = None
        try:
            answer = await self._try(key, call)
            if answer.reply is None:
                return answer
            kept = await self._cache.put(key, self.judge.name, answer.reply, answer.record.cost, replace=self._refresh)
            return replace(answer, reply=kept, record=replace(answer.record, text=kept.text))
        finally:
            if answer is None or answer.reply is None:
                await self._cache.release(key)  # a reply that is kept has let go of it already

    async def _try(self, key: str, call: Call) -> Answer:
        """Until there is a reply, or no try is left. That a server wants fewer calls is no failure: it takes time."""
        used, tried = Usage(0, 0), 0
        while True:
            try:
                reply = await self._once(call)
            except NoSchemaError:
                raise
            except CallError as error:
                used = plus(used, error.usage)
                if error.kind == "rate" and error.retry:
                    self._check_stop()
                    continue
                tried += 1
                asked_s = error.retry_after_s
                too_long = asked_s is not None and asked_s > self._retries.longest_asked_s
                if not error.retry or too_long or tried > self._retries.most:
                    return self._failed(key, call, error, used, tried)
                if asked_s is not None:
                    self._limits.window.pause(asked_s)
                await self._limits.breaker.wait(self._retries.wait_s(tried))
                self._check_stop()
            else:
                used = plus(used, reply.usage)
                self.counts.calls += 1
                self._tell(reply, call)
                cost = None if self.price is None else str(self.price.of(used))
                return Answer(reply, Record(key, self.judge.name, reply.text, used, False, cost, *_beside(reply)))

    async def _once(self, call: Call) -> Reply:
        asked = sum(self.judge.count_tokens(message.content) for message in call.messages)
        taken = asked + call.sampling.max_tokens
        limits = self._limits
        async with AsyncExitStack() as stack:
            for within in (*self._own, limits):
                began_s = await stack.enter_async_context(within.slot(taken))
            worst = await self._reserve(call, taken)
            usage, reply, lost = None, None, False
            try:
                reply = await self._asked(call)
                usage = reply.usage
                limits.worked(began_s)
                return reply
            except CallError as error:
                usage, lost = error.usage, error.kind == "outage"
                if lost:
                    limits.breaker.failed(error.reason)
                elif error.kind == "rate":
                    limits.refused(began_s, error.retry_after_s, error.reason)
                else:
                    limits.breaker.worked()
                raise
            finally:
                cost = None if usage is None or self.price is None else self.price.of(usage)
                place = (self.judge.name, call.place.layer)
                self._ledger.tried(*place, usage, cost, ended=reply is not None, lost=lost)
                await self._budget.settle(worst, cost or Decimal(0))
                used = 0 if usage is None else usage.prompt + usage.completion
                for within in (*self._own, limits):
                    await within.used(taken, used)

    async def _reserve(self, call: Call, taken: int) -> Decimal:
        """What the call may cost at most, set aside. Raises StoppedError or BudgetError: it must not be made."""
        try:
            self._check_stop()
            if self.price is None:
                return Decimal(0)
            # No tokenizer makes more tokens of a text than it has bytes; messages have a few of their own.
            most = sum(len(message.content.encode()) + 16 for message in call.messages)
            worst = self.price.of(Usage(most, call.sampling.max_tokens))
            await self._budget.reserve(worst)
            if self._stop.is_set():
                await self._budget.settle(worst, Decimal(0))
            self._check_stop()
            return worst
        except RunError:
            for limits in (*self._own, self._limits):
                await limits.give_back(taken)
            raise

    async def _asked(self, call: Call) -> Reply:
        """Of the judge, and clean: it can be stored. Whatever a judge raises fails this call alone."""
        try:
            reply = await self.judge.ask(call)
            text, thoughts = clean(reply.text), clean(reply.thoughts)
            is_clean = text is reply.text and thoughts is reply.thoughts
            return reply if is_clean else replace(reply, text=text, thoughts=thoughts)
        except (CallError, RunError):
            raise
        except Exception as error:
            raise _InternalError(f"internal error of the judge: {type(error).__name__}: {error}"[:300]) from error

    def _tell(self, reply: Reply, call: Call) -> None:
        """Say once what is not sent as it was asked for."""
        if call.schema is not None and self.schema is None:
            self.schema = True
        for what in set(reply.adapted) - self._told:
            self._told.add(what)
            self._say(f"{self.judge.name}: asked with {what}, because the server wants it so")

    def _failed(self, key: str, call: Call, error: CallError, used: Usage, tried: int) -> Answer:
        self.counts.failed += 1
        self._ledger.tried(self.judge.name, call.place.layer, None, None, ended=True)
        if not self.counts.calls + self.counts.cached and self.counts.failed >= _HOPELESS:
            raise RunError(f"{self.judge.name}: the first {_HOPELESS} calls all failed, the last with: {error.reason}")
        reason = clean(error.reason if tried == 1 else f"{error.reason} (tried {tried} times)")
        billed = used if used != Usage(0, 0) else None
        cost = None if billed is None or self.price is None else str(self.price.of(billed))
        record = Record(key, self.judge.name, None, billed, cached=False, cost=cost)
        if isinstance(error, _InternalError):
            return Answer(None, record, reason, "internal", clean("".join(traceback.format_exception(error))))
        return Answer(None, record, reason, error.kind)


def _beside(reply: Reply) -> tuple[str, tuple[str, ...]]:
    """What a record keeps of a reply beside its text."""
    return reply.thoughts, reply.adapted
