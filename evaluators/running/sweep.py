"""The paper's ablation: width, depth, connection and aggregation, for little more than the largest point costs.

What points share is asked once. Roles are asked for at the largest width, and narrower points take the first ones, so
that their first layers are calls that the cache has. Depths below the largest, and all aggregations, are computed from
the deepest point's reviews without a call.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
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
from evaluators.statistics.runs import JudgedRun
from evaluators.values import Failure, Record, Role, Usage


@dataclass(frozen=True)
class Narrowed(Network):
    """The first `width` neurons of a network whose roles are asked for at width `widest`."""

    widest: int = 1

    async def _roles(
        self, pair: Pair, reviewers: Reviewers
    ) -> tuple[Sequence[Role | None], tuple[Record, ...], Failure | None]:
        wide = Network(width=self.widest, roles=self.roles)
        roles, calls, failure = await wide._roles(pair, reviewers)
        return roles[: self.width], calls, failure


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
    # Without a second layer, nothing is connected.
    connections = axes.connections if max(axes.depths) > 1 else axes.connections[:1]
    for width in sorted(axes.widths, reverse=True):
        for at, connection in enumerate(connections):
            folder = Path(config.out) / "points" / f"width-{width}-of-{max(axes.widths)}-{connection.replace(':', '-')}"
            outcome = _judge(config, axes, width, connection, folder)
            say(f"judged      width {width}, {connection}: {outcome.tally.total.calls:,} calls made")
            if outcome.stopped is not None:
                raise RunError(f"{outcome.stopped}; what is judged is kept, and the same command goes on")
            bills = _Bills(prices)
            run = read_run(folder, flag="--out", watch=bills.add)
            made += outcome.tally.total.calls
            cached += outcome.tally.total.cached
            for depth in sorted(axes.depths):
                if depth > 1 or at == 0:
                    named = {"width": width, "depth": depth, "connection": connection if depth > 1 else "-"}
                    points += (
                        {**named, "aggregation": name, **_measured(run, name, depth, draws, seed), **bills.of(depth)}
                        for name in axes.aggregations
                    )
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


def _judge(config: JudgeConfig, axes: Axes, width: int, connection: str, folder: Path) -> Outcome:
    network = dataclasses.replace(
        config.network, width=width, depth=max(axes.depths), connection=connection, min_roles=1, max_roles=width
    )
    run = Run(dataclasses.replace(config, out=str(folder), network=network))
    shape = {item.name: getattr(run.network, item.name) for item in dataclasses.fields(Network)}
    run.network = Narrowed(**shape, widest=max(axes.widths))
    folder.parent.mkdir(parents=True, exist_ok=True)
    return run.judge(lambda text: None)


class _Bills:
    """What a point of each depth would cost by itself: its calls, whether they came from the cache or not."""

    def __init__(self, prices: Prices) -> None:
        self._prices = prices
        self._layers: dict[int, list[tuple[int, Decimal | None]]] = {}

    def add(self, record: Mapping[str, Any]) -> None:
        calls = [(0, call) for call in record["roles_calls"]]
        calls += [(0, call) for failure in record["roles_failures"] for call in failure["calls"]]
        calls += [
            (at, call) for at, layer in enumerate(record["layers"], start=1) for item in layer for call in item["calls"]
        ]
        for at, call in calls:
            usage = Usage(**call["usage"]) if call["usage"] is not None else Usage(0, 0)
            price = self._prices.get(call["judge"])
            cost = None if price is None else price.of(usage)
            self._layers.setdefault(at, []).append((usage.prompt + usage.completion, cost))

    def of(self, depth: int) -> dict[str, Any]:
        """Calls, tokens and USD (exact, as a text; None where a model has no price)."""
        calls = [call for layer, found in self._layers.items() if layer <= depth for call in found]
        costs = [cost for _, cost in calls if cost is not None]
        return {
            "calls": len(calls),
            "tokens": sum(tokens for tokens, _ in calls),
            "cost": str(sum(costs, Decimal(0))) if len(costs) == len(calls) else None,
        }


def _measured(run: JudgedRun, aggregation: str, depth: int, draws: int, seed: int) -> dict[str, Any]:
    samples = [
        dataclasses.replace(sample, winner=sample.verdict(aggregation, run.tie_margin, depth=depth).winner)
        for sample in run.samples
    ]
    found: dict[str, Any] = {
        "samples": len(samples),
        "unscored": sum(sample.winner is None for sample in samples),
        "ties": sum(sample.winner == 0 for sample in samples),
    }
    labelled = [sample for sample in samples if sample.human is not None]
    return {**found, **agreement(labelled, draws, seed)} if labelled else found
