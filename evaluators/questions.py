"""One question to a judge: fitted to its context, and asked again, with the reason or more room, until it is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from evaluators.asking.caller import Answer, Caller
from evaluators.asking.fitting import fit
from evaluators.errors import RunError
from evaluators.judges import NoSchemaError
from evaluators.messages import Call, Message, Place, Reply, Sampling
from evaluators.reading.ending import cut_off
from evaluators.reading.markup import neutralize
from evaluators.reading.scores import Scale, Unparsed
from evaluators.storing import one_line
from evaluators.values import Record

Render = Callable[[Sequence[str], bool], tuple[Message, ...]]
"""From the texts (flat) and whether a schema is sent, to the messages."""

_TOKENS_OF_FORMAT = 32
"""Tokens that a chat template adds, at most."""
UNMATCHED = Unparsed("its token probabilities do not spell its scores")
"""Asking again would pay for the same: it is the server's or the tokenizer's way."""
_MOST_ROOM = 8
"""Times --max-tokens that a reply may have in the end, after others were cut off."""


@dataclass(frozen=True)
class Manner:
    """How judges are asked, apart from the network's shape."""

    scale: Scale = (1, 10)
    max_tokens: int = 1024
    reasks: int = 2
    structured: Literal["auto", "on", "off"] = "auto"
    probabilities: bool = False
    confidence: bool = False
    context: int | None = None
    assign: Literal["neurons", "layers"] = "neurons"
    seed: int | None = None


@dataclass(frozen=True)
class Outcome:
    """The last reply of a question and what was read from it, after all attempts."""

    read: Any
    """None: nothing could be."""
    reply: Reply | None
    records: tuple[Record, ...]
    shortened: int
    kind: Literal["unparsed", "probabilities", "call", "context", "moderated", "internal"] = "unparsed"
    reason: str = ""
    trace: str | None = None


class Question:
    """Made and numbered at once; what is slow happens in `answered`."""

    def __init__(
        self,
        caller: Caller,
        place: Place,
        temperature: float | None,
        *,
        manner: Manner,
        texts: Sequence[str],
        render: Render,
        read: Callable[[Reply, bool], Any],
        again: Callable[[str, bool], str],
        schema: dict[str, Any],
        records: list[Record],
        again_after_cache: bool = False,
    ) -> None:
        """Arguments that are functions:

        read: from a reply, and whether a schema was sent, to what is in it, or Unparsed.
        again: from the reason why a reply could not be read, and whether a schema is sent, to what the judge is told.

        records: takes those of all calls, as they are made.
        again_after_cache: unreadable replies that the cache has do not count as attempts.
        """
        self._caller = caller
        self._manner = manner
        self._texts = texts
        self._render = render
        self._read = read
        self._again = again
        self._schema = schema
        self._sample = records
        self._again_after_cache = again_after_cache
        self._context = manner.context
        self._structured = manner.structured == "on" or (manner.structured == "auto" and caller.schema is not False)
        sampling = Sampling(temperature, manner.max_tokens, manner.seed, manner.probabilities)
        self._rendered: dict[bool, tuple[Message, ...]] = {}
        self._first = self._whole()
        self._call = Call(self._first, sampling, place, scale=manner.scale)
        self._shortened = 0

    @property
    def prompt(self) -> tuple[object, ...]:
        """What tells it apart from others: questions with the same are copies, unless they are different draws."""
        judge, call = self._caller.judge, self._call
        return (judge.identity, judge.coordinates(call), call.messages, call.sampling, call.place.index)

    def drawn(self, number: int) -> None:
        """It is the number-th (from 0) of its copies."""
        self._call = replace(self._call, draw=number)

    async def answered(self) -> Outcome:
        """Ask until the reply can be read, `reasks` times more than once at most.

        Raises:
            RunError: no question can be asked any more, or nothing can be read of any reply.
        """
        outcome = await self._ask()
        if outcome.read is not None:
            self._caller.was_read()
        else:
            self._caller.was_not_read(outcome.reason)
        return outcome

    async def _ask(self) -> Outcome:
        if not await self._fit_first():
            room = self._manner.max_tokens
            reason = f"the prompt does not fit a context of {self._context} tokens with a reply of {room}"
            return Outcome(None, None, (), 0, "context", reason)
        records: list[Record] = []
        reason, messages, attempt, left = "", self._first, 0, self._manner.reasks + 1
        while left:
            answer = await self._once(messages, attempt)
            records.append(answer.record)
            self._sample.append(answer.record)
            if answer.reply is None:
                kind = "call" if answer.kind == "rate" or answer.kind == "outage" else answer.kind  # noqa: PLR1714
                return Outcome(None, None, tuple(records), self._shortened, kind, answer.reason or "", answer.trace)
            cut = self._cut_off(answer.reply)
            found = self._read(answer.reply, self._structured) if cut is None else cut
            if found is UNMATCHED:
                return Outcome(None, None, tuple(records), self._shortened, "probabilities", UNMATCHED.reason)
            if not isinstance(found, Unparsed):
                return Outcome(found, answer.reply, tuple(records), self._shortened)
            reason = found.reason
            attempt += 1
            left -= not (self._again_after_cache and answer.record.cached)
            if cut is None:
                problem = Message("user", self._again(neutralize(one_line(reason)), self._structured))
                said = Message("assistant", neutralize(answer.reply.text) or "(nothing)")
                messages = (*self._first, said, problem)
                if not self._fits(messages):
                    messages = self._first
            elif self._widen():
                messages = self._first
            else:
                break  # cut off, and no more room: the same would come of the same
        return Outcome(None, None, tuple(records), self._shortened, "unparsed", f"unreadable reply: {reason}")

    def _cut_off(self, reply: Reply) -> Unparsed | None:
        # Thoughts that only the total tells of are not bounded by max_tokens.
        tokens = None if reply.usage.estimated else reply.usage.completion - reply.usage.reasoning
        reason = cut_off(reply.finish, tokens, self._call.sampling.max_tokens, unclosed=reply.unclosed)
        if reason is None and reply.thoughts and not reply.text.strip():
            reason = "it holds only thoughts"
        return None if reason is None else Unparsed(reason)

    async def _once(self, messages: tuple[Message, ...], attempt: int) -> Answer:
        try:
            return await self._caller.ask(self._as_call(messages, attempt))
        except NoSchemaError as error:
            if error.lasting and self._manner.structured == "on":
                raise RunError(f"{error.reason}; use --structured auto, or off") from error
            if error.lasting:
                self._caller.without_schema()
            self._structured = False
            self._first, self._shortened = self._fitted() or (self._first, self._shortened)
            return await self._caller.ask(self._as_call(self._first, attempt))

    async def _fit_first(self) -> bool:
        """Make the first messages, as short as they must be; False where they do not fit."""
        abilities = await self._caller.abilities()
        self._context = self._manner.context or abilities.context
        if self._manner.structured == "auto" and self._structured and abilities.structured is False:
            self._structured = False
            self._first = self._whole()
        start = self._fitted()
        if start is None:
            return False
        if self._manner.structured == "auto" and abilities.structured is None:
            start = await self._paid_for(start)
        self._first, self._shortened = start
        return True

    async def _paid_for(self, start: tuple[tuple[Message, ...], int]) -> tuple[tuple[Message, ...], int]:
        """While it is not known whether the server takes a schema: the text form, where only that has a reply."""
        if await self._caller.knows(self._as_call(start[0], 0)):
            return start
        self._structured = False
        plain = self._fitted()
        if plain is not None and await self._caller.knows(self._as_call(plain[0], 0)):
            return plain
        self._structured = True
        return start

    def _as_call(self, messages: tuple[Message, ...], attempt: int) -> Call:
        schema = self._schema if self._structured else None
        return replace(self._call, messages=messages, attempt=attempt, schema=schema)

    def _size(self, messages: Sequence[Message]) -> int:
        count = self._caller.judge.count_tokens
        return sum(count(message.content) + _TOKENS_OF_FORMAT for message in messages)

    def _fits(self, messages: Sequence[Message]) -> bool:
        return self._context is None or self._size(messages) + self._call.sampling.max_tokens <= self._context

    def _whole(self) -> tuple[Message, ...]:
        """The first messages, with nothing left out."""
        if self._structured not in self._rendered:
            self._rendered[self._structured] = self._render(self._texts, self._structured)
        return self._rendered[self._structured]

    def _fitted(self) -> tuple[tuple[Message, ...], int] | None:
        """The first messages, and how many characters were left out of them."""
        messages = self._whole()
        if self._fits(messages):
            return messages, 0
        short = fit(self._texts, lambda flat: self._fits(self._render(flat, self._structured)))
        return None if short is None else (self._render(short[0], self._structured), short[1])

    def _widen(self) -> bool:
        """Twice the room for the next reply, as far as the context has it; False where there is no more."""
        now = self._call.sampling.max_tokens
        most = _MOST_ROOM * self._manner.max_tokens
        if self._context is not None:
            most = min(most, self._context - self._size(self._first))
        if most <= now:
            return False
        self._call = replace(self._call, sampling=replace(self._call.sampling, max_tokens=min(2 * now, most)))
        return True
