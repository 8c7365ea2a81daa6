from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from evaluators import command_line
from evaluators.commands.bootstrap import check_bootstrap
from evaluators.errors import ConfigError
from evaluators.running.metrics_file import write_json, write_statistics
from evaluators.saying import say
from evaluators.showing.figures import comparison_text, score_text


@dataclass(frozen=True)
class MetricsCommand:
    """Agreement of a run with people, with intervals, and the judge's preferences; of two runs, their difference.

    Adds the figures to the run's metrics.json under "statistics", and with two runs writes comparison.json beside the
    second run's.
    """

    runs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN [RUN]")]
    """Folder of one run, or of two runs on the same samples."""
    draws: int = 10_000
    """Draws of the bootstrap."""
    seed: int = 0
    """Seed of the bootstrap."""
    json: bool = False
    """Print JSON."""

    def __post_init__(self) -> None:
        if not 1 <= len(self.runs) <= 2:
            raise ConfigError(f"RUN: name the folder of one run, or of two to compare; {len(self.runs)} given")
        if len(set(map(os.path.realpath, self.runs))) < len(self.runs):
            raise ConfigError(f"RUN {self.runs[0]}: named twice; name each run once")
        check_bootstrap(self.draws, self.seed)


def main(argv: Sequence[str], *, prog: str) -> int:
    """`depthlab judge metrics`. Raises UserError where a run cannot be read, or two have nothing in common."""
    wanted = command_line.read(MetricsCommand, argv, prog=prog)
    from evaluators.running.judged import read_run
    from evaluators.statistics.compare import compare
    from evaluators.statistics.figures import score

    runs = [read_run(name) for name in wanted.runs]
    both = compare(*runs, draws=wanted.draws, seed=wanted.seed) if len(runs) == 2 else None
    found = []
    for run in runs:
        found.append(score(run, draws=wanted.draws, seed=wanted.seed))
        write_statistics(run.path, found[-1])
    if both is not None:
        write_json(runs[1].path / "comparison.json", both)
    if wanted.json:
        say(json.dumps(found[0] if both is None else {"runs": found, "comparison": both}, indent=2))
        return 0
    for run, figures in zip(runs, found, strict=True):
        say("\n".join([f"{run.path}", *(f"  {line}" for line in score_text(figures))]))
    if both is not None:
        say("\n".join(["second - first", *(f"  {line}" for line in comparison_text(both))]))
    return 0
