from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from evaluators.commands.bootstrap import check_bootstrap
from evaluators.errors import ConfigError
from evaluators.running.config import JudgeConfig
from evaluators.running.metrics_file import write_json
from evaluators.running.settings import parse_as
from evaluators.running.sweep import Axes, sweep
from evaluators.saying import say
from evaluators.showing.figures import figure_text
from evaluators.showing.terminal import refused_lines


@dataclass(frozen=True)
class SweepConfig(JudgeConfig):
    """Judge the same samples at several widths, depths, connections and aggregations; one table of figures and costs.

    Calls that points share are made once: the cost of a point is what it would cost alone. Takes the flags of
    `depthlab judge run` too; the same command goes on where it stopped. Writes sweep.json into --out.
    """

    axes: Axes = field(default_factory=Axes)
    draws: int = 2_000
    """Draws of the bootstrap."""


def main(argv: Sequence[str], *, prog: str) -> int:
    """`depthlab judge sweep`. Raises UserError as `Run` does."""
    wanted = parse_as(SweepConfig, argv, prog=prog)
    if wanted.money.dry_run:
        raise ConfigError("--dry-run: ask `depthlab judge run --dry-run` for the largest width and depth instead")
    check_bootstrap(wanted.draws, seed=0)
    names = [item.name for item in dataclasses.fields(JudgeConfig)]
    config = JudgeConfig(**{name: getattr(wanted, name) for name in names})
    found = sweep(config, wanted.axes, say, draws=wanted.draws, seed=0)
    write_json(Path(wanted.out) / "sweep.json", found)
    say("\n".join(sweep_text(found)))
    return 0


def sweep_text(found: Mapping[str, Any]) -> Iterator[str]:
    """A table for a terminal."""
    yield from refused_lines(found["refused"] or {})
    yield f"{'width':>5} {'depth':>5} {'connection':<10} {'aggregation':<15} {'accuracy':<22} {'kappa':<22}" + (
        f" {'calls':>8} {'tokens':>11} {'USD':>9}"
    )
    for point in found["points"]:
        ways = point.get("unscored_as_wrong")
        figures = [_figure(ways[name]) if ways else "no labels" for name in ("accuracy", "kappa")]
        cost = "unpriced" if point["cost"] is None else f"{Decimal(point['cost']):.4f}"
        yield (
            f"{point['width']:>5} {point['depth']:>5} {point['connection']:<10} {point['aggregation']:<15} "
            f"{figures[0]:<22} {figures[1]:<22} {point['calls']:>8,} {point['tokens']:>11,} {cost:>9}"
        )
    yield "intervals   95 %, over queries: samples of one count together"
    yield from _position(found["points"])
    yield f"calls       {found['calls_made']:,} made for all points, {found['calls_from_cache']:,} from the cache"


def _position(points: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What depth does to position bias, with the first aggregation."""
    yield "position bias, and what is left of it in the verdict"
    for width in dict.fromkeys(point["width"] for point in points):
        own = [
            point for point in points if point["width"] == width and point["aggregation"] == points[0]["aggregation"]
        ]
        judge = own[0]["position"]
        yield (
            f"  width {width}, the judge (layer 1): same verdict in both orders {figure_text(judge['consistency'])}, "
            f"first shown preferred {figure_text(judge['first_preferred'])}"
        )
        for point in own:
            network = point["position"]["network"]
            yield (
                f"    depth {point['depth']} {point['connection']}: names response 1 in "
                f"{figure_text(network['names_response1'])} (people {figure_text(network['people_name_response1'])}), "
                f"right where layer 1's orders differ {figure_text(network['right_where_orders_differ'])}"
            )
    if any(point["depth"] > 1 for point in points):
        yield "  from layer 2 on, reviews have read those of both orders: no order has a verdict of its own there"


def _figure(figure: Mapping[str, Any]) -> str:
    if figure["value"] is None:
        return "not defined"
    return f"{figure['value']:.3f}" + ("" if figure["low"] is None else f" [{figure['low']:.3f}, {figure['high']:.3f}]")
