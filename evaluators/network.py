"""The network, as in its diagram: roles -> layer 1 -> ... -> layer L -> aggregation (arXiv:2308.01862)."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from evaluators.aggregation import AGGREGATIONS, aggregate
from evaluators.errors import ConfigError
from evaluators.samples import Pair
from evaluators.values import Failure, Judgement, Layer, Order, Record, Review, Role, Verdict

MOST = 1_000
"""Layers, neurons and reviews of each: a network of more could never be paid, and is a slip."""


class Reviewers(Protocol):
    """Who fills the neurons: renders prompts, calls judges, reads replies."""

    async def ask_roles(
        self, pair: Pair, *, exact: int | None, at_least: int, at_most: int
    ) -> tuple[tuple[Role, ...], tuple[Record, ...]] | Failure:
        """Perspectives for a sample, with the calls that it took."""

    async def review(
        self, pair: Pair, role: Role | None, *, layer: int, neuron: int, order: Order, index: int, seen: Layer
    ) -> Review | Failure:
        """One review."""


@dataclass(frozen=True)
class Network:
    """The shape of a network; presets are in `architectures`. Layers and neurons are numbered from 1."""

    depth: int = 2
    """Layers L."""
    width: int | None = None
    """Neurons in a layer; None: as many as the sample has roles."""
    min_roles: int = 2
    max_roles: int = 8
    roles: tuple[str, ...] | None = None
    """Fixed roles, for which nobody is asked; () for one neuron without a role."""
    connection: str = "full"
    """Which neurons of the layer before a neuron sees: "full" or "window:k", those less than k places away."""
    perspective: str = "own"
    """From which roles a neuron of layer 2 and up reviews: its "own", or those of all neurons it has "seen"."""
    both_orders: bool = True
    reviews: int = 1
    """Reviews of each neuron in each order."""
    aggregation: str = "mean-all"
    tie_margin: float = 0.0
    temperatures: tuple[float | None, ...] = (1.0,)
    """Of layer 1, 2, ...; the last holds for all layers after it. None: the server's default."""

    def __post_init__(self) -> None:
        sizes = {"depth": self.depth, "reviews": self.reviews, "min-roles": self.min_roles, "width": self.width}
        for flag, value in sizes.items():
            if value is not None and not 1 <= value <= MOST:
                raise ConfigError(f"--{flag} {value}: must be at least 1, and at most {MOST:,}")
        if self.max_roles < self.min_roles:
            raise ConfigError(f"--max-roles {self.max_roles}: must be at least --min-roles {self.min_roles}")
        if not 0 <= self.tie_margin < math.inf:
            raise ConfigError(f"--tie-margin {self.tie_margin}: must be a number, at least 0")
        if self.aggregation not in AGGREGATIONS:
            raise ConfigError(f"--aggregation {self.aggregation}: choose from {', '.join(AGGREGATIONS)}")
        if self.perspective not in ("own", "seen"):
            raise ConfigError(f"--perspective {self.perspective}: choose from own, seen")
        if not self.temperatures or any(value is not None and not 0 <= value <= 2 for value in self.temperatures):
            raise ConfigError(f"--temperatures {self.temperatures}: each must be between 0 and 2, or None")
        if self.roles is not None and any(not role.strip() for role in self.roles):
            raise ConfigError("--roles: a role is empty")
        if self.roles and self.width is not None and self.width > len(self.roles):
            raise ConfigError(
                f"--width {self.width}: there are {len(self.roles)} --roles; name as many, or leave it out"
            )
        self.window  # noqa: B018 - raises where the connection is malformed

    def stored(self) -> dict[str, Any]:
        """All settings and the class, as JSON keeps them; `restored` reads them back."""
        kind = type(self)
        return {
            "class": f"{kind.__module__}.{kind.__qualname__}",
            **json.loads(json.dumps(dataclasses.asdict(self), default=str)),
        }

    @property
    def window(self) -> int | None:
        """The k of "window:k"; None for "full"."""
        if self.connection == "full":
            return None
        name, _, size = self.connection.partition(":")
        if name != "window" or not size.isdecimal() or int(size) < 1:
            raise ConfigError(
                f"--connection {self.connection}: write full, or window:2 (neurons less than 2 places away)"
            )
        return int(size)

    @property
    def orders(self) -> tuple[Order, ...]:
        """The orders in which a pair is shown."""
        return ("12", "21") if self.both_orders else ("12",)

    def temperature(self, layer: int) -> float | None:
        """Of a layer, from 1."""
        return self.temperatures[min(layer, len(self.temperatures)) - 1]

    def calls(self, roles: int, *, single: bool = False) -> int:
        """Calls for a sample of `roles` roles: 1 + 2 n L in the paper's network."""
        orders = 1 if single else len(self.orders)
        return (self.roles is None) + orders * roles * self.depth * self.reviews

    def sees(self, neuron: int, other: int) -> bool:
        """Whether a neuron sees the reviews of neuron `other` of the layer before."""
        return self.window is None or abs(neuron - other) < self.window

    async def judge(self, pair: Pair, reviewers: Reviewers) -> Judgement:
        """Judge one sample."""
        roles, calls, failure = await self._roles(pair, reviewers)
        if failure is not None:
            return _without_roles(failure, calls)
        layers: list[Layer] = []
        for layer in range(1, self.depth + 1):
            layers.append(await self._layer(pair, roles, layer, layers[-1] if layers else (), reviewers))
        verdict = aggregate(layers, self.aggregation, self.tie_margin)
        return Judgement(tuple(role for role in roles if role is not None), calls, tuple(layers), verdict)

    async def _roles(
        self, pair: Pair, reviewers: Reviewers
    ) -> tuple[Sequence[Role | None], tuple[Record, ...], Failure | None]:
        if self.roles is not None:
            fixed: list[Role | None] = [Role(name) for name in self.roles] or [None] * (self.width or 1)
            return fixed[: self.width], (), None
        found = await reviewers.ask_roles(
            pair, exact=self.width, at_least=self.width or self.min_roles, at_most=self.width or self.max_roles
        )
        return ((), found.calls, found) if isinstance(found, Failure) else (*found, None)

    async def _layer(
        self, pair: Pair, roles: Sequence[Role | None], layer: int, previous: Layer, reviewers: Reviewers
    ) -> Layer:
        """All reviews of a layer at once: every neuron, in every order, as often as it reviews."""
        items = await asyncio.gather(
            *(
                reviewers.review(
                    pair,
                    self._perspective(roles, neuron, layer),
                    layer=layer,
                    neuron=neuron,
                    order=order,
                    index=index,
                    seen=[item for item in previous if self.sees(neuron, item.neuron)],
                )
                for neuron in range(1, len(roles) + 1)
                for order in (self.orders if not pair.is_single else self.orders[:1])
                for index in range(self.reviews)
            ),
            return_exceptions=True,
        )
        # Only now: what was in flight beside a call that stops the run has come back, and is in the cache.
        for item in items:
            if isinstance(item, BaseException):
                raise item
        return [item for item in items if not isinstance(item, BaseException)]

    def _perspective(self, roles: Sequence[Role | None], neuron: int, layer: int) -> Role | None:
        """With "seen", the roles within reach after layer - 1 rounds of talk, in their order."""
        role = roles[neuron - 1]
        if self.perspective == "own" or role is None:
            return role
        reach = len(roles) if self.window is None else (self.window - 1) * (layer - 1)
        reach = 0 if layer == 1 else reach
        within = [other for at, other in enumerate(roles, start=1) if other is not None and abs(at - neuron) <= reach]
        return within[0] if len(within) == 1 else Role("; ".join(other.text for other in within))


def restored(settings: Mapping[str, Any]) -> Network:
    """The shape that `stored` wrote, whatever class it was: for statistics, not for judging again."""
    known = {item.name for item in dataclasses.fields(Network)}
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in settings.items() if name in known
    }
    return Network(**values)


def _without_roles(failure: Failure, calls: tuple[Record, ...]) -> Judgement:
    verdict = Verdict(None, None, None, 0, 0, f"no roles: {failure.reason}")
    # The calls stand in one place, so that nobody bills them twice.
    return Judgement((), calls, (), verdict, failures=(replace(failure, calls=()),))
