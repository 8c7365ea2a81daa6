"""A population of reviewers whose statistics are known, for tests and for planning a study.

A review's difference between the two responses is a sum of normal terms (standard deviations in points of the scale):

    d_1 = q + sample + role + review + position * (+1 for the response shown first, -1 for the other)

q is the true gap, whose sign people agree with (`human`): normal with deviation `gap`, or always +-gap with `fixed=1`;
`sample` is an error that all reviewers of a sample share (so errors are correlated), `role` one that a neuron keeps in
both orders, `review` one of its own in every call.

With `skill`, votes are beta-binomial instead (Condorcet's jury with correlated votes): a single review is right with a
probability p that the sample has, drawn from Beta(skill (1 - rho) / rho, (1 - skill)(1 - rho) / rho), so that two
reviews of a sample are right with correlation `rho`; q = sqrt(role^2 + review^2) Phi^-1(p), and `sample` is 0.

A reviewer of layer k > 1 starts from its own review of the layer before, in the same order, and either mixes it with
the mean of the other neurons' reviews that it sees (DeGroot 1974, with an error that the layer shares, `herd`),

    d_k = (1 - mix) d_{k-1} + mix * mean of others' d_{k-1} + review + herd

or, with `persuaded` or `misled`, changes its mind: if wrong and a review that it sees is right, with probability
`persuaded`; if right and one that it sees is wrong, with probability `misled`; then d_k = -d_{k-1}, else d_{k-1}.

d is rounded to a multiple of `step` (0: not at all), and the scores are the middle of the scale plus and minus d / 2.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, fields
from statistics import NormalDist, fmean
from typing import TYPE_CHECKING, NamedTuple

from evaluators.errors import ConfigError
from evaluators.judges import Abilities, Backend, estimated_tokens, judge, refuse_options
from evaluators.messages import Call, Place, Reply
from evaluators.values import Review, Usage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

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
    skill: float = 0.0
    """Probability that a single review is right; 0: given by `gap`, `fixed` and `sample`."""
    rho: float = 0.0
    """With `skill`: correlation of two reviews of a sample being right."""
    mix: float = 0.5
    herd: float = 0.0
    persuaded: float = 0.0
    misled: float = 0.0
    roles: float = 4.0
    """Roles that are proposed for a sample."""
    step: float = 0.0
    seed: float = 0.0

    @property
    def spread(self) -> float:
        """Standard deviation of the errors that a single review does not share with other neurons."""
        return math.hypot(self.role, self.review)

    def chance_at(self, quantile: ArrayLike) -> NDArray[np.float64]:
        """With `skill`: quantiles of a sample's probability p that a single review is right."""
        import numpy as np

        if not self.rho:
            return np.full(np.shape(quantile), self.skill)
        from scipy.special import betaincinv

        size = (1 - self.rho) / self.rho
        p = betaincinv(self.skill * size, (1 - self.skill) * size, quantile)
        # Phi^-1 needs 0 < p < 1, which a Beta with its mass at the ends does not keep in floating point.
        return np.clip(p, 1e-12, 1 - 1e-12)


class _View(NamedTuple):
    """A place as noise sees it. Noise belongs to the responses, not to their numbers: swapping them swaps a verdict."""

    texts: str
    """Both responses, in an order of their own."""
    turn: int
    """1 where that is the order of the sample, -1 where it is the other, 0 where they are equal."""
    shown: int
    """1 where response 1 is shown first, else -1."""
    straight: str
    """Whether they are shown in the order of `texts`."""


def _view(place: Place) -> _View:
    names = (place.pair.response1, place.pair.response2 or "")
    turn = (names[0] < names[1]) - (names[0] > names[1])
    shown = 1 if place.order == "12" else -1
    return _View("".join(sorted(names)), turn, shown, "first" if shown == turn else "second")


@judge("simulated")
class Simulated:
    """`simulated:gap=1,sample=0.7,role=1,review=1,position=0.8,roles=4`; every parameter may be left out."""

    worth_caching = False
    concurrency: int | None = None

    def __init__(self, argument: str, backend: Backend) -> None:
        refuse_options(f"simulated:{argument}", backend)
        self.population = parse_population(argument, seed=backend.seed)
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
        p = self.population
        own = [review for review in place.seen if (review.neuron, review.order) == (place.neuron, place.order)]
        if not own:  # layer 1, or its own review failed
            return self._opinion(place)
        before = fmean(_difference(review, place.order) for review in own)
        if p.persuaded or p.misled:
            return -before if self._changes_its_mind(place, before) else before
        return self._mixed(place, before)

    def _mixed(self, place: Place, before: float) -> float:
        p, name = self.population, place.pair.id
        others = [_difference(review, place.order) for review in place.seen if review.neuron != place.neuron]
        mixed = (1 - p.mix) * before + p.mix * fmean(others) if others else before
        own, turn, shown, straight = _view(place)
        error = p.review * self._normal(name, own, "review", place.layer, place.neuron, straight, place.index)
        error += p.herd * self._normal(name, own, "herd", place.layer)
        return mixed + shown * turn * error

    def _changes_its_mind(self, place: Place, before: float) -> bool:
        p, pair = self.population, place.pair
        own, _, shown, straight = _view(place)
        side = shown * {1: 1, 2: -1}.get(int(pair.human or 0), 0)  # the sign of d that is right
        seen = [side * _difference(review, place.order) for review in place.seen]
        chance = 0.0
        if side * before < 0 and max(seen) > 0:
            chance = p.persuaded
        elif side * before > 0 and min(seen) < 0:
            chance = p.misled
        draw = self._uniform(pair.id, own, "persuasion", place.layer, place.neuron, straight, place.index)
        return draw < chance

    def _opinion(self, place: Place) -> float:
        p, pair = self.population, place.pair
        own, turn, shown, straight = _view(place)
        error = p.sample * self._normal(pair.id, own, "sample")
        error += p.role * self._normal(pair.id, own, "role", place.layer, place.neuron)
        error += p.review * self._normal(pair.id, own, "review", place.layer, place.neuron, straight, place.index)
        return shown * (self._truth(place) + turn * error) + p.position

    def _truth(self, place: Place) -> float:
        """The gap q, positive where response 1 is better."""
        p, pair = self.population, place.pair
        own = _view(place).texts
        if p.skill:
            size = p.spread * _NORMAL.inv_cdf(float(p.chance_at(self._uniform(pair.id, own, "skill"))))
        else:
            size = p.gap if p.fixed else p.gap * abs(self._normal(pair.id, own, "gap"))
        return {1: size, 2: -size}.get(int(pair.human), 0.0) if pair.human is not None else 0.0

    def _uniform(self, *about: object) -> float:
        """A number between 0 and 1 that is always the same for the same thing."""
        text = repr((self.population.seed, *about)).encode()
        number = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest())
        return (number + 0.5) / 2**64

    def _normal(self, *about: object) -> float:
        return _NORMAL.inv_cdf(self._uniform(*about))

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


_BELOW_1 = ("skill", "rho")
_AT_MOST_1 = ("mix", "persuaded", "misled")
_INSTEAD_OF = {
    "skill": ("gap", "fixed", "sample"),
    "persuaded": ("mix", "herd"),
    "misled": ("mix", "herd"),
}
"""Parameter -> those that have no effect beside it."""


def parse_population(text: str, *, seed: int = 0, flag: str = "--judge simulated:") -> Population:
    """From `gap=1,sample=0.7,...`.

    Args:
        flag: what the text stands behind, for the message.

    Raises:
        ConfigError: no such parameter, a value out of range, or one that has no effect beside another.
    """

    def refused(why: str) -> ConfigError:
        return ConfigError(f"{flag}{text}: {why}")

    known = {field.name for field in fields(Population)}
    values: dict[str, float] = {}
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        try:
            values[name] = float(value)
        except ValueError:
            name = ""
        if name not in known or not 0 <= values[name] < math.inf:
            raise refused(f"{part!r}: write NAME=NUMBER (at least 0); names: {', '.join(sorted(known))}")
        if (name in _BELOW_1 and values[name] >= 1) or (name in _AT_MOST_1 and values[name] > 1):
            raise refused(f"{part!r}: must be {'below' if name in _BELOW_1 else 'at most'} 1")
    for name, others in _INSTEAD_OF.items():
        if values.get(name) and (idle := [other for other in others if other in values]):
            raise refused(f"{idle[0]} has no effect beside {name}; leave one of them out")
    if values.get("skill"):
        values["sample"] = 0.0
    elif values.get("rho"):
        raise refused("rho belongs to skill; write skill=0.7,rho=0.1")
    population = Population(**{"seed": float(seed), **values})
    if population.skill and not population.spread:
        raise refused("skill: needs role or review above 0, the noise that makes a review wrong")
    return population
