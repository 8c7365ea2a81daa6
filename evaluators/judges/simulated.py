"""A population of reviewers whose statistics are known, for tests and for planning a study.

A review's difference between the two responses is a sum of normal terms (standard deviations in points of the scale):

    d = q + sample + role + review + position * (+1 for the response shown first, -1 for the other)

q is the true gap, whose sign people agree with (`human`): normal with deviation `gap`, or always +-gap with `fixed=1`;
`sample` is an error that all reviewers of a sample share (so errors are correlated), `role` one that a neuron keeps in
both orders, `review` one of its own in every call. In layer 2 and up a fresh opinion is mixed with the mean of the
reviews it saw, `mix` of them. d is rounded to a multiple of `step` (0: not at all), and the scores are the middle of
the scale plus and minus d / 2.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields
from statistics import NormalDist, fmean

from evaluators.errors import ConfigError
from evaluators.judges import Abilities, Backend, estimated_tokens, judge
from evaluators.reviews import Call, Place, Reply, Review, Usage

_NORMAL = NormalDist()


@dataclass(frozen=True)
class Population:
    """Parameters of `simulated:name=value,...`; deviations and biases in points of the scale."""

    gap: float = 1.0
    fixed: float = 0.0
    sample: float = 0.7
    role: float = 1.0
    review: float = 1.0
    position: float = 0.0
    mix: float = 0.5
    roles: float = 4.0
    """Roles that are proposed for a sample."""
    step: float = 0.0
    seed: float = 0.0


@judge("simulated")
class Simulated:
    """`simulated:gap=1,sample=0.7,role=1,review=1,position=0.8,roles=4`; every parameter may be left out."""

    worth_caching = False
    concurrency: int | None = None

    def __init__(self, argument: str, backend: Backend) -> None:
        self.population = _parsed(argument, backend.seed)
        self.name = f"simulated:{argument}"
        self.identity = f"simulated:{self.population}"

    async def ask(self, call: Call) -> Reply:
        """A reply in the format asked for, decided by (seed, sample, layer, neuron, order, index) alone."""
        text = self._roles(call) if call.place.task == "roles" else self._review(call)
        return Reply(
            text, Usage(sum(estimated_tokens(m.content) for m in call.messages), estimated_tokens(text)), "stop"
        )

    def coordinates(self, call: Call) -> tuple[object, ...]:
        """Everything that the reply depends on and the messages may not show."""
        place = call.place
        return (place.pair.id, place.pair.human, place.layer, place.neuron, place.order, place.index, call.attempt)

    async def abilities(self) -> Abilities:
        """It writes JSON if asked to."""
        return Abilities(structured=True)

    def count_tokens(self, text: str) -> int:
        """Our estimate."""
        return estimated_tokens(text)

    async def close(self) -> None:
        """Nothing is open."""

    def difference(self, place: Place) -> float:
        """Score of the response shown first minus that of the other, before rounding."""
        d = self._opinion(place)
        seen = [_difference(review, place.order) for review in place.seen]
        # A review it saw is a mean of what others thought, its bias included.
        return d if not seen else (1 - self.population.mix) * d + self.population.mix * fmean(seen)

    def _opinion(self, place: Place) -> float:
        p, pair = self.population, place.pair
        # Noise belongs to the responses, not to their numbers, so that swapping them swaps the verdict.
        names = (pair.response1, pair.response2 or "")
        turn = (names[0] < names[1]) - (names[0] > names[1])
        own = "".join(sorted(names))
        shown = 1.0 if place.order == "12" else -1.0
        straight = "first" if shown == turn else "second"
        error = p.sample * self._normal(pair.id, own, "sample")
        error += p.role * self._normal(pair.id, own, "role", place.layer, place.neuron)
        error += p.review * self._normal(pair.id, own, "review", place.layer, place.neuron, straight, place.index)
        return shown * (self._truth(place) + turn * error) + p.position

    def _truth(self, place: Place) -> float:
        p, pair = self.population, place.pair
        own = "".join(sorted((pair.response1, pair.response2 or "")))
        size = p.gap if p.fixed else p.gap * abs(self._normal(pair.id, own, "gap"))
        return {1: size, 2: -size}.get(int(pair.human), 0.0) if pair.human is not None else 0.0

    def _normal(self, *about: object) -> float:
        """A standard normal number that is always the same for the same thing."""
        text = repr((self.population.seed, *about)).encode()
        number = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest())
        return _NORMAL.inv_cdf((number + 0.5) / 2**64)

    def _review(self, call: Call) -> str:
        low, high = call.scale
        d = self.difference(call.place)
        d = round(d / self.population.step) * self.population.step if self.population.step else d
        signs = (1, -1) if call.place.pair.response2 is not None else (1,)
        scores = [min(max((low + high) / 2 + sign * d / 2, low), high) for sign in signs]
        evidence = f"Simulated evidence of neuron {call.place.neuron}."
        if call.schema is not None:
            names = ("score_1", "score_2") if len(scores) == 2 else ("score",)
            return json.dumps({"evidence": evidence, **dict(zip(names, scores, strict=True)), "confidence": 5})
        names = ("Score of Assistant 1", "Score of Assistant 2") if len(scores) == 2 else ("Score",)
        lines = [f"{name}: {score:.6f}" for name, score in zip(names, scores, strict=True)]
        return "\n".join([f"Evaluation evidence: {evidence}", *lines])

    def _roles(self, call: Call) -> str:
        names = [f"Simulated perspective {number}" for number in range(1, round(self.population.roles) + 1)]
        if call.schema is not None:
            return json.dumps({"roles": [{"name": name, "focus": ""} for name in names]})
        return "\n".join(f"- {name}" for name in names)


def _difference(review: Review, order: str) -> float:
    first, *second = review.scores if order == "12" else review.scores[::-1]
    return first - second[0] if second else 0.0


def _parsed(argument: str, seed: int) -> Population:
    known = {field.name for field in fields(Population)}
    values = {"seed": float(seed)}
    for part in filter(None, argument.split(",")):
        name, _, value = part.partition("=")
        try:
            values[name] = float(value)
        except ValueError:
            name = ""
        if name not in known or values[name] < 0 or values[name] != values[name]:
            raise ConfigError(
                f"--judge simulated:{argument}: {part!r}: write NAME=NUMBER (at least 0); names: "
                f"{', '.join(sorted(known))}"
            )
    return Population(**values)
