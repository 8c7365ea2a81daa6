from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from evaluators.commands.bootstrap import check_bootstrap
from evaluators.errors import ConfigError
from evaluators.running.metrics_file import write_json, write_statistics


@dataclass(frozen=True)
class MetricsCommand:
    """Agreement of a run with people, with intervals, and the judge's preferences; of two runs, their difference.

    Adds the figures to the run's metrics.json under "statistics", and with two runs writes comparison.json beside the
    second run's.
    """

    runs: Annotated[tuple[str, ...], tyro.conf.Positional]
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
        check_bootstrap(self.draws, self.seed)


def main(argv: Sequence[str], *, prog: str) -> int:
    """`depthlab judge metrics`. Raises UserError where a run cannot be read, or two have nothing in common."""
    wanted = tyro.cli(MetricsCommand, args=list(argv), prog=prog)
    from evaluators.statistics.compare import compare
    from evaluators.statistics.figures import score
    from evaluators.statistics.runs import read_run

    runs = [read_run(name) for name in wanted.runs]
    found = []
    for run in runs:
        found.append(score(run, draws=wanted.draws, seed=wanted.seed))
        write_statistics(run.path, found[-1])
    both = compare(*runs, draws=wanted.draws, seed=wanted.seed) if len(runs) == 2 else None
    if both is not None:
        write_json(runs[1].path / "comparison.json", both)
    if wanted.json:
        print(json.dumps(found[0] if both is None else {"runs": found, "comparison": both}, indent=2))
        return 0
    for run, figures in zip(runs, found, strict=True):
        print("\n".join([f"{run.path}", *(f"  {line}" for line in score_text(figures))]))
    if both is not None:
        print("\n".join(["second - first", *(f"  {line}" for line in comparison_text(both))]))
    return 0


def figure_text(figure: Mapping[str, Any]) -> str:
    """`0.750 [0.690, 0.810]`, or that it is not defined."""
    if figure["value"] is None:
        return "not defined"
    ends = "no interval" if figure["low"] is None else f"{figure['low']:.3f}, {figure['high']:.3f}"
    return f"{figure['value']:.3f} [{ends}]"


def score_text(found: Mapping[str, Any]) -> Iterator[str]:
    """For a terminal."""
    yield f"samples     {found['samples']:,} of {found['queries']:,} queries, {found['labelled']:,} labelled"
    unscored = found["unscored"]
    yield (
        f"unscored    {unscored['samples']:,} samples, "
        f"{unscored['unscored_reviews']:,} of {unscored['reviews']:,} reviews"
    )
    if found["labelled"]:
        for title, way in (("agreement", "scored"), ("as wrong", "unscored_as_wrong")):
            figures = found["agreement"][way]
            yield f"{title:<12}n = {figures['accuracy']['n']:,}: " + ", ".join(
                f"{name.replace('_', '-')} {figure_text(figure)}" for name, figure in figures.items()
            )
        for family, ways in found["families"].items():
            figures = ways["scored"]
            yield (
                f"  {family:<10}n = {figures['accuracy']['n']:,}: accuracy {figure_text(figures['accuracy'])}, "
                f"kappa {figure_text(figures['kappa'])}"
            )
        if found["never_ties"] and found["human"].get("0"):
            best = found["ceilings"]["never_tie"]
            yield (
                f"ceiling     this judge never says tie; one that never does cannot exceed accuracy "
                f"{best['accuracy']:.3f}" + ("" if best["kappa"] is None else f", kappa {best['kappa']:.3f}")
            )
    if "position" in found:
        position = found["position"]
        yield (
            f"position    same verdict in both orders {figure_text(position['consistency'])}, "
            f"first shown preferred {figure_text(position['first_preferred'])}"
        )
    lengths = found["length"]
    yield (
        f"length      the judge prefers the longer {figure_text(lengths['judge_prefers_longer'])}, people "
        + figure_text(lengths["people_prefer_longer"])
    )


def comparison_text(found: Mapping[str, Any]) -> Iterator[str]:
    """For a terminal."""
    yield f"samples     {found['samples']:,} in both ({found['only_in_one']:,} in one alone), unscored counted as wrong"
    for name, figure in found["difference"].items():
        yield f"{name.replace('_', '-'):<12}" + figure_text({**figure, "value": figure["difference"]})
    yield (
        f"McNemar     only the first is right {found['only_first_right']:,}, only the second "
        f"{found['only_second_right']:,}: p = {found['mcnemar_p']:.4g}"
    )
