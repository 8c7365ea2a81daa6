from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from evaluators.commands.bootstrap import check_bootstrap
from evaluators.errors import ConfigError
from evaluators.running.config import JudgeConfig
from evaluators.running.metrics_file import write_json
from evaluators.running.sweep import Axes, sweep, sweep_text


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
    wanted = tyro.cli(SweepConfig, args=list(argv), prog=prog, config=(tyro.conf.OmitArgPrefixes,))
    if wanted.money.dry_run:
        raise ConfigError("--dry-run: ask `depthlab judge run --dry-run` for the largest width and depth instead")
    check_bootstrap(wanted.draws, seed=0)
    names = [item.name for item in dataclasses.fields(JudgeConfig)]
    config = JudgeConfig(**{name: getattr(wanted, name) for name in names})
    found = sweep(config, wanted.axes, print, draws=wanted.draws, seed=0)
    write_json(Path(wanted.out) / "sweep.json", found)
    print("\n".join(sweep_text(found)))
    return 0
