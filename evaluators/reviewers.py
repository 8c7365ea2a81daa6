"""Who fills the neurons: renders prompts, asks judges, reads replies, asks again where they are unusable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from evaluators.asking.caller import Caller
from evaluators.asking.fitting import fit
from evaluators.judges import NoSchemaError
from evaluators.messages import Call, Message, Place, Reply, Sampling
from evaluators.parsing import Scale, Scores, Unparsed, parse_scores
from evaluators.prompts import Prompts, Seen, Texts
from evaluators.role_parsing import parse_roles
from evaluators.samples import Pair
from evaluators.values import Failure, Layer, Order, Record, Review, Role

Render = Callable[[Sequence[str], bool], tuple[Message, ...]]
"""From the texts (flat) and whether a schema is sent, to the messages."""

_TOKENS_OF_FORMAT = 32
"""Tokens that a chat template adds, at most."""


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
    default_context: int = 8192
    assign: Literal["neurons", "layers"] = "neurons"
    seed: int | None = None


@dataclass(frozen=True)
class _Outcome:
    """The last reply of a question and what was read from it, after all attempts."""

    read: Any
    """None: nothing could be."""
    reply: Reply | None
    records: tuple[Record, ...]
    shortened: int
    kind: Literal["unparsed", "call", "context"] = "unparsed"
    reason: str = ""


class Reviewers:
    """Reviewers for a network, from one or several judges."""

    def __init__(
        self, callers: Sequence[Caller], prompts: Prompts, manner: Manner, temperature: Callable[[int], float | None]
    ) -> None:
        self.callers = callers
        self._prompts = prompts
        self._manner = manner
        self._temperature = temperature

    def caller(self, layer: int, neuron: int) -> Caller:
        """The judge of a neuron: dealt out to the neurons in turn, or one to each layer (the last to the rest)."""
        if self._manner.assign == "layers":
            return self.callers[min(layer, len(self.callers)) - 1]
        return self.callers[(neuron - 1) % len(self.callers)]

    async def ask_roles(
        self, pair: Pair, *, exact: int | None, at_least: int, at_most: int
    ) -> tuple[tuple[Role, ...], tuple[Record, ...]] | Failure:
        """Perspectives for a sample; too few are filled up with the family's standing ones, marked as such."""
        texts = Texts(pair.query, _presented(pair, "12"), pair.reference)

        def render(flat: Sequence[str], structured: bool) -> tuple[Message, ...]:
            return self._prompts.roles(
                pair.family, texts.rebuilt(flat), exact=exact, most=at_most, structured=structured
            )

        def read(reply: Reply) -> tuple[Role, ...] | Unparsed:
            if reply.finish == "length":
                return Unparsed(f"it was cut off after {self._manner.max_tokens} tokens (--max-tokens)")
            return parse_roles(reply.text) or Unparsed("it names no perspective")

        place = Place(pair, "roles")
        # Roles are found at temperature 0, as the authors do, unless the server takes no temperature.
        temperature = None if self._temperature(1) is None else 0.0
        outcome = await self._ask(self.callers[0], place, temperature, texts.flat(), render, read, _ROLES_SCHEMA)
        if outcome.read is None and outcome.kind != "unparsed":
            return Failure(0, 0, "12", 0, outcome.kind, outcome.reason, outcome.records, outcome.shortened)
        roles = list(outcome.read or ())[:at_most]
        taken = {role.name.casefold() for role in roles}
        for name in self._prompts.family(pair.family, pair.query).perspectives:
            if len(roles) < at_least and name.casefold() not in taken:
                roles.append(Role(name, standing=True))
        if not roles:
            return Failure(0, 0, "12", 0, "unparsed", outcome.reason, outcome.records, outcome.shortened)
        return tuple(roles), outcome.records

    async def review(
        self, pair: Pair, role: Role | None, *, layer: int, neuron: int, order: Order, index: int, seen: Layer
    ) -> Review | Failure:
        """One review, its scores turned back to the sample's own order."""
        earlier = tuple(item for item in seen if isinstance(item, Review))
        place = Place(pair, "review", layer, neuron, order, index, role, earlier)
        presented = _presented(pair, order)
        shown = [_shown(review, neuron, order) for review in earlier]
        texts = Texts(pair.query, presented, pair.reference, tuple(review.evidence for review in shown))
        scale, count = self._manner.scale, len(presented)
        perspective = None if role is None else role.text

        def render(flat: Sequence[str], structured: bool) -> tuple[Message, ...]:
            return self._prompts.review(
                pair.family,
                texts.rebuilt(flat),
                perspective,
                shown,
                scale,
                structured=structured,
                confidence=self._manner.confidence,
            )

        def read(reply: Reply) -> Scores | Unparsed:
            if reply.finish == "length" and reply.expected is None:
                return Unparsed(f"it was cut off after {self._manner.max_tokens} tokens (--max-tokens)")
            return parse_scores(reply.text, scale, count=count)

        outcome = await self._ask(
            self.caller(layer, neuron),
            place,
            self._temperature(layer),
            texts.flat(),
            render,
            read,
            _review_schema(count, scale, self._manner.confidence),
        )
        scores = outcome.read
        if scores is None or outcome.reply is None:
            return Failure(
                layer, neuron, order, index, outcome.kind, outcome.reason, outcome.records, outcome.shortened
            )
        values = outcome.reply.expected or scores.values
        return Review(
            layer,
            neuron,
            order,
            index,
            "" if role is None else role.name,
            tuple(values if order == "12" else values[::-1]),
            scores.evidence,
            scores.confidence,
            outcome.records,
            outcome.shortened,
        )

    async def _ask(
        self,
        caller: Caller,
        place: Place,
        temperature: float | None,
        texts: Sequence[str],
        render: Render,
        read: Callable[[Reply], Any],
        schema: dict[str, Any],
    ) -> _Outcome:
        """Ask until the reply can be read, `reasks` times more than once at most."""
        abilities = await caller.abilities()
        setting = self._manner.structured
        structured = setting == "on" or (setting == "auto" and abilities.structured is not False)
        context = self._manner.context or abilities.context or self._manner.default_context
        manner = self._manner
        sampling = Sampling(temperature, manner.max_tokens, manner.seed, manner.probabilities)

        first = render(texts, structured)

        def size(messages: Sequence[Message]) -> int:
            count = caller.judge.count_tokens
            return sum(count(message.content) + _TOKENS_OF_FORMAT for message in messages) + sampling.max_tokens

        shortened = 0
        if size(first) > context:
            fitted = fit(texts, lambda flat: size(render(flat, structured)) <= context)
            if fitted is None:
                reason = f"the prompt does not fit a context of {context} tokens with a reply of {sampling.max_tokens}"
                return _Outcome(None, None, (), 0, "context", reason)
            flat, shortened = fitted
            first = render(flat, structured)
        messages = first
        records: list[Record] = []
        reason = ""
        for attempt in range(manner.reasks + 1):
            call = Call(messages, sampling, place, attempt, schema if structured else None, manner.scale)
            try:
                answer = await caller.ask(call)
            except NoSchemaError:
                await caller.without_schema()
                return await self._ask(caller, place, temperature, texts, render, read, schema)
            records.append(answer.record)
            if answer.reply is None:
                return _Outcome(None, None, tuple(records), shortened, "call", answer.reason or "")
            found = read(answer.reply)
            if not isinstance(found, Unparsed):
                return _Outcome(found, answer.reply, tuple(records), shortened)
            reason = found.reason
            problem = self._prompts.again(
                place.pair.family, place.task, _presented(place.pair, "12"), reason, manner.scale, structured=structured
            )
            messages = (*first, Message("assistant", answer.reply.text or "(nothing)"), Message("user", problem))
            if size(messages) > context:
                messages = first
        return _Outcome(None, None, tuple(records), shortened, "unparsed", f"unreadable reply: {reason}")


def _presented(pair: Pair, order: Order) -> tuple[str, ...]:
    if pair.response2 is None:
        return (pair.response1,)
    both = (pair.response1, pair.response2)
    return both if order == "12" else both[::-1]


def _shown(review: Review, neuron: int, order: Order) -> Seen:
    """An earlier review as the reader of an order sees it: fields, not text, are turned."""
    scores = review.scores if order == "12" else review.scores[::-1]
    return Seen(
        review.role or f"reviewer {review.neuron}",
        review.layer,
        review.evidence,
        tuple(f"{round(score, 2):g}" for score in scores),
        own=review.neuron == neuron,
        turned=review.order != order,
    )


_ROLES_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "roles": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"name": {"type": "string"}, "focus": {"type": "string"}},
                "required": ["name", "focus"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["roles"],
    "additionalProperties": False,
}


def _review_schema(count: int, scale: Scale, confidence: bool) -> dict[str, Any]:
    # Evidence stands first: a score that comes before its reasons has none.
    score = {"type": "number", "description": f"from {scale[0]} to {scale[1]}"}
    names = ["score"] if count == 1 else ["score_1", "score_2"]
    properties: dict[str, Any] = {"evidence": {"type": "string"}, **dict.fromkeys(names, score)}
    if confidence:
        properties["confidence"] = {"type": "number", "description": "from 1 to 10"}
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
