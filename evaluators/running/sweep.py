"""The paper's ablation: width, depth, connection and aggregation, for little more than the largest point costs.

What points share is asked once. Roles are asked for at the largest width, and narrower points take the first ones, so
that their first layers are calls that the cache has. Depths below the largest, and all aggregations, are computed from
the deepest point's reviews without a call; but not of a preset that judges in a way of its own (a subclass of
`Network`), of which every point is judged.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from evaluators.aggregation import AGGREGATIONS
from evaluators.asking.money import Prices
from evaluators.errors import ConfigError, RunError
from evaluators.network import Network, Reviewers
from evaluators.running.config import JudgeConfig
from evaluators.running.judged import read_run
from evaluators.running.run import Outcome, Run
from evaluators.samples import Pair
from evaluators.statistics.figures import agreement
from evaluators.statistics.position import position
from evaluators.statistics.runs import JudgedRun
from evaluators.values import Failure, Layer, Order, Record, Review, Role, Usage


@dataclass(frozen=True)
class FirstRoles:
    """Reviewers that ask for roles at width `widest`, whatever the network's, and give it the first ones."""

    reviewers: Reviewers
    widest: int

    async def ask_roles(
        self, pair: Pair, *, exact: int | None, at_least: int, at_most: int
    ) -> tuple[tuple[Role, ...], tuple[Record, ...]] | Failure:
        """As `Reviewers` says."""
        if exact is None:
            return await self.reviewers.ask_roles(pair, exact=exact, at_least=at_least, at_most=at_most)
        found = await self.reviewers.ask_roles(pair, exact=self.widest, at_least=self.widest, at_most=self.widest)
        return found if isinstance(found, Failure) else (found[0][:exact], found[1])

    async def review(
        self, pair: Pair, role: Role | None, *, layer: int, neuron: int, order: Order, index: int, seen: Layer
    ) -> Review | Failure:
        """As `Reviewers` says."""
        return await self.reviewers.review(pair, role, layer=layer, neuron=neuron, order=order, index=index, seen=seen)


@dataclass(frozen=True)
class Axes:
    """What is varied."""

    widths: tuple[int, ...] = (1, 2, 4)
    """Neurons in a layer."""
    depths: tuple[int, ...] = (1, 2)
    """Layers."""
    connections: tuple[str, ...] = ("full",)
    """Of layers: full, window:2, ..."""
    aggregations: tuple[str, ...] = ("mean-all",)
    """How reviews become a verdict."""

    def __post_init__(self) -> None:
        for name in ("widths", "depths", "connections", "aggregations"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ConfigError(f"--{name} {' '.join(map(str, values))}: name at least one, none twice")
        for name, numbers in (("widths", self.widths), ("depths", self.depths)):
            if min(numbers) < 1:
                raise ConfigError(f"--{name} {min(numbers)}: must be at least 1")
        for connection in self.connections:
            Network(connection=connection)
        for aggregation in self.aggregations:
            Network(aggregation=aggregation)


def sweep(config: JudgeConfig, axes: Axes, say: Callable[[str], None], *, draws: int, seed: int) -> dict[str, Any]:
    """Judge and measure every point.

    Raises:
        ConfigError: the settings exclude the reuse of calls, or name a width that the fixed roles do not have.
        RunError: as `Run.judge`, or the run was stopped; the same command goes on.
    """
    if config.caching.no_cache or config.caching.refresh:
        raise ConfigError("--no-cache and --refresh: a sweep reuses calls through the cache; leave them out")
    fixed = config.network.roles
    if fixed is not None and max(axes.widths) > len(fixed):
        raise ConfigError(f"--widths {max(axes.widths)}: there are {len(fixed)} --roles")
    if any(AGGREGATIONS[name][2] for name in axes.aggregations):
        config = dataclasses.replace(config, asking=dataclasses.replace(config.asking, confidence=True))
    prices = Prices(None if config.money.prices is None else Path(config.money.prices).expanduser())
    points: list[dict[str, Any]] = []
    made = cached = 0
    spent = Decimal(0)
    # Without a second layer, nothing is connected.
    connections = axes.connections if max(axes.depths) > 1 else axes.connections[:1]
    is_plain = type(config.network.build(len(config.judge))) is Network
    for width in sorted(axes.widths, reverse=True):
        for at, connection in enumerate(connections):
            for setting in _to_judge(axes, is_plain, again=at > 0):
                folder = Path(config.out) / "points" / _name(axes, width, connection, setting)
                outcome = _judge(config, axes, width, connection, setting, folder, spent)
                say(f"judged      {folder.name}: {outcome.tally.total.calls:,} calls made")
                spent += outcome.tally.total.cost
                if outcome.stopped is not None:
                    raise RunError(f"{outcome.stopped}; what is judged is kept, and the same command goes on")
                bills = _Bills(prices)
                run = read_run(folder, flag="--out", watch=bills.add)
                made += outcome.tally.total.calls
                cached += outcome.tally.total.cached
                for depth, aggregation in setting.points:
                    named = {"width": width, "depth": depth, "connection": connection if depth > 1 else "-"}
                    there = _at(run, aggregation, depth) if is_plain else run
                    bill = bills.of(depth if is_plain else None)
                    points.append({**named, "aggregation": aggregation, **_measured(there, draws, seed), **bill})
    order = {name: at for at, name in enumerate(("-", *axes.connections))}
    points.sort(key=lambda point: (point["width"], point["depth"], order[point["connection"]]))
    return {
        "points": points,
        "refused": run.refused,
        "calls_made": made,
        "calls_from_cache": cached,
        "draws": draws,
        "seed": seed,
    }


@dataclass(frozen=True)
class _Setting:
    """What a width and a connection are judged with, and the points (depth, aggregation) that it is judged for."""

    depth: int
    aggregation: str | None
    """None: the network's own."""
    points: tuple[tuple[int, str], ...]


def _to_judge(axes: Axes, is_plain: bool, *, again: bool) -> list[_Setting]:
    """Of a plain network the deepest alone, which holds the others. A subclass may judge in any way: each by itself.

    Args:
        again: another connection was judged before, which is the same at depth 1.
    """
    depths = [depth for depth in sorted(axes.depths) if depth > 1 or not again]
    points = tuple((depth, name) for depth in depths for name in axes.aggregations)
    if is_plain:
        return [_Setting(max(axes.depths), None, points)]
    return [_Setting(depth, name, ((depth, name),)) for depth, name in points]


def _name(axes: Axes, width: int, connection: str, setting: _Setting) -> str:
    name = f"width-{width}-of-{max(axes.widths)}-{connection.replace(':', '-')}"
    return name if setting.aggregation is None else f"{name}-depth-{setting.depth}-{setting.aggregation}"


def _judge(
    config: JudgeConfig, axes: Axes, width: int, connection: str, setting: _Setting, folder: Path, spent: Decimal
) -> Outcome:
    """One point.

    Args:
        spent: USD that other points have cost, which the budget is for too.
    """
    shape = dataclasses.replace(
        config.network, width=width, depth=setting.depth, connection=connection, min_roles=1, max_roles=width
    )
    if setting.aggregation is not None:
        shape = dataclasses.replace(shape, aggregation=setting.aggregation)
    run = Run(dataclasses.replace(config, out=str(folder), network=shape))
    run.through = lambda reviewers: FirstRoles(reviewers, max(axes.widths))
    return run.judge(lambda text: None, spent_elsewhere=spent)


def _at(run: JudgedRun, aggregation: str, depth: int) -> JudgedRun:
    """The same run as if it had so many layers and that aggregation."""
    samples = tuple(
        dataclasses.replace(
            sample,
            winner=sample.verdict(aggregation, run.tie_margin, depth=depth).winner,
            layers=sample.layers[:depth],
        )
        for sample in run.samples
    )
    network = dataclasses.replace(run.network, depth=depth, aggregation=aggregation)
    return dataclasses.replace(run, samples=samples, network=network)


class _Bills:
    """What a point of each depth would cost by itself: its calls, whether they came from the cache or not."""

    def __init__(self, prices: Prices) -> None:
        self._prices = prices
        self._layers: dict[int, list[tuple[int, Decimal | None]]] = {}

    def add(self, record: Mapping[str, Any]) -> None:
        # The calls of roles that failed stand here too, and once more in their failures.
        calls = [(0, call) for call in (*record["roles_calls"], *record.get("calls_elsewhere", ()))]
        calls += [
            (at, call) for at, layer in enumerate(record["layers"], start=1) for item in layer for call in item["calls"]
        ]
        for at, call in calls:
            usage = Usage(**call["usage"]) if call["usage"] is not None else Usage(0, 0)
            price = self._prices.get(call["judge"])
            cost = None if price is None else price.of(usage)
            self._layers.setdefault(at, []).append((usage.prompt + usage.completion, cost))

    def of(self, depth: int | None) -> dict[str, Any]:
        """Of so many layers, or of all: calls, tokens and USD (exact, as a text; None where a model has no price)."""
        calls = [call for layer, found in self._layers.items() if depth is None or layer <= depth for call in found]
        costs = [cost for _, cost in calls if cost is not None]
        return {
            "calls": len(calls),
            "tokens": sum(tokens for tokens, _ in calls),
            "cost": str(sum(costs, Decimal(0))) if len(costs) == len(calls) else None,
        }


def _measured(run: JudgedRun, draws: int, seed: int) -> dict[str, Any]:
    samples = run.samples
    found: dict[str, Any] = {
        "samples": len(samples),
        "unscored": sum(sample.winner is None for sample in samples),
        "ties": sum(sample.winner == 0 for sample in samples),
        "position": position(run),
    }
    return {**found, **agreement(run.labelled, draws, seed)} if run.labelled else found
