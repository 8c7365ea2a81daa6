"""Who fills the neurons: renders prompts, asks judges, reads replies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from evaluators.asking.caller import Caller
from evaluators.messages import Message, Place, Reply
from evaluators.prompts import Prompts, Seen, Texts
from evaluators.questions import UNMATCHED, Manner, Outcome, Question, Render
from evaluators.reading.roles import parse_roles
from evaluators.reading.scores import Scale, Scores, Unparsed, parse_scores
from evaluators.samples import Pair
from evaluators.storing import clean
from evaluators.values import Failure, Layer, Order, Record, Review, Role


class Reviewers:
    """Of one sample, from one or several judges.

    Questions of a layer whose prompts are equal are different draws: they are numbered in the order in which they are
    put, before anything is waited for, so that the same network asks the same again.
    """

    def __init__(
        self,
        callers: Sequence[Caller],
        prompts: Prompts,
        manner: Manner,
        temperature: Callable[[int], float | None],
        *,
        again_after_cache: bool = False,
    ) -> None:
        self.callers = callers
        self.records: list[Record] = []
        """Of all calls that were made for the sample, whatever becomes of them."""
        self._prompts = prompts
        self._manner = manner
        self._temperature = temperature
        self._again_after_cache = again_after_cache
        self._draws: Counter[tuple[object, ...]] = Counter()

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

        def read(reply: Reply, _: bool) -> tuple[Role, ...] | Unparsed:
            return parse_roles(reply.text) or Unparsed("it names no perspective")

        place = Place(pair, "roles")
        # Roles are found at temperature 0, as the authors do, unless the server takes no temperature.
        temperature = None if self._temperature(1) is None else 0.0
        outcome = await self._ask(self.callers[0], place, temperature, texts.flat(), render, read, _ROLES_SCHEMA)
        if outcome.read is None and outcome.kind != "unparsed":
            return _failure(place, outcome)
        roles = [*(outcome.read or ())[:at_most]]
        taken = {role.name.casefold() for role in roles}
        standing = self._prompts.family(pair.family, pair.query).perspectives
        for name in standing:
            if len(roles) < at_least and name.casefold() not in taken:
                roles.append(Role(name, standing=True))
        if len(roles) < at_least:
            reason = (
                f"{len(roles)} perspectives, {len(standing)} standing ones of the family among them, where {at_least} "
                f"are asked for{': ' + outcome.reason if outcome.reason else ''}; name them with --roles"
            )
            return _failure(place, replace(outcome, reason=reason))
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

        def read(reply: Reply, structured: bool) -> Scores | Unparsed:
            scores = parse_scores(reply.text, scale, count=count, structured=structured)
            if isinstance(scores, Scores) and self._manner.probabilities:
                # Written and expected scores are two scales, which one verdict must not mix.
                return UNMATCHED if reply.expected is None else replace(scores, values=reply.expected)
            return scores

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
            return _failure(place, outcome)
        values = scores.values
        return Review(
            layer,
            neuron,
            order,
            index,
            "" if role is None else role.name,
            tuple(values if order == "12" else values[::-1]),
            clean(scores.evidence),
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
        read: Callable[[Reply, bool], Any],
        schema: dict[str, Any],
    ) -> Outcome:
        def again(reason: str, structured: bool) -> str:
            presented = _presented(place.pair, "12")
            scale = self._manner.scale
            return self._prompts.again(place.pair.family, place.task, presented, reason, scale, structured=structured)

        question = Question(
            caller,
            place,
            temperature,
            manner=self._manner,
            texts=texts,
            render=render,
            read=read,
            again=again,
            schema=schema,
            again_after_cache=self._again_after_cache,
            records=self.records,
        )
        copies = (place.layer, *question.prompt)
        question.drawn(self._draws[copies])
        self._draws[copies] += 1
        return await question.answered()


def _failure(place: Place, outcome: Outcome) -> Failure:
    return Failure(
        place.layer,
        place.neuron,
        place.order,
        place.index,
        outcome.kind,
        outcome.reason,
        outcome.records,
        outcome.shortened,
        outcome.trace,
    )


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
