from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from evaluators import command_line
from evaluators.commands.bootstrap import check_bootstrap
from evaluators.errors import ConfigError, RunError
from evaluators.running.metrics_file import write_json
from evaluators.saying import say
from evaluators.showing.figures import figure_text
from evaluators.showing.terminal import printable


@dataclass(frozen=True)
class CalibrateCommand:
    """Choose aggregation, tie margin and weights of reviews on one part of a run's labelled samples, without a call.

    The figures shown are those of the other part, which the choice has not seen; all samples of a query are on one
    side. Writes calibration.json, and calibration.html with a reliability diagram and accuracy against coverage, into
    the run's folder.
    """

    run: Annotated[str, tyro.conf.Positional]
    """The run's folder."""
    share: float = 0.5
    """Share of the queries to tune on."""
    seed: int = 0
    """Seed of the split and of the bootstrap."""
    draws: int = 10_000
    """Draws of the bootstrap."""

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ConfigError(f"--share {self.share:g}: must be between 0 and 1")
        check_bootstrap(self.draws, self.seed)


def main(argv: Sequence[str], *, prog: str) -> int:
    """`depthlab judge calibrate`. Raises UserError where the run cannot be read or split, or a file not written."""
    wanted = command_line.read(CalibrateCommand, argv, prog=prog)
    from evaluators.running.judged import read_run
    from evaluators.showing.report.calibration import page
    from evaluators.statistics.calibration import calibrate

    run = read_run(wanted.run)
    if not run.labelled:
        raise RunError(f"RUN {wanted.run}: no sample has a label of people, which calibration needs")
    found = calibrate(run, share=wanted.share, seed=wanted.seed, draws=wanted.draws)
    path = run.path / "calibration.html"
    write_json(path.with_suffix(".json"), found)
    try:
        path.write_text(page(run.path.resolve().name, found), encoding="utf-8")
    except OSError as error:
        raise RunError(f"{path}: {error.strerror}") from error
    say("\n".join(calibration_text(found)))
    say(f"charts      {path}")
    return 0


def calibration_text(found: Mapping[str, Any]) -> Iterator[str]:
    """For a terminal."""
    chosen = found["chosen"]
    yield f"tuned on    {found['tuned_on']:,} samples, {found['settings_tried']:,} settings tried"
    yield f"chosen      --aggregation {chosen['aggregation']} --tie-margin {chosen['tie_margin']:g}"
    queries = found["against_before"]["queries"]
    yield f"held out    {found['held_out']:,} samples, unscored counted as wrong; intervals over {queries:,} queries"
    yield f"  before    {_figures(found['before'])}"
    yield f"  after     {_figures(found['after'])}"
    yield f"  after - before: {change_text(found['against_before'])}, the best of {found['settings_tried']:,} settings"
    yield from _weights_text(found["weights"])
    if found["reliability"]:
        yield (
            "reliability of verdicts with a winner: predicted, right, n; expected calibration error "
            f"{found['calibration_error']:.3f}"
        )
        for bin_ in found["reliability"]:
            bar = "#" * round(40 * bin_["right"])
            yield f"  {bin_['predicted']:.2f}  {bin_['right']:.2f}  {bar:<40}  {bin_['n']:,}"
    if found["abstain"]:
        yield "answering only above a margin: coverage, accuracy"
        for wanted in (0.25, 0.5, 0.75, 1.0):
            point = min(found["abstain"], key=lambda point: abs(point["coverage"] - wanted))
            yield f"  |margin| >= {point['least_margin']:.3f}: {point['coverage']:.2f}, {point['accuracy']:.3f}"


def _weights_text(found: Mapping[str, Any]) -> Iterator[str]:
    if "not_fitted" in found:
        yield f"weights     none fitted: {found['not_fitted']}"
        return
    yield f"weights     fitted on {found['reviews']:,} reviews, {100 * found['right']:.1f} % of them right; log odds:"
    shown = ", ".join(f"{printable(name)} {value:+.2f}" for name, value in list(found["log_odds"].items())[:8])
    yield from textwrap.wrap(shown, 116, initial_indent="  ", subsequent_indent="  ")
    if len(found["log_odds"]) > 8:
        yield f"  and {len(found['log_odds']) - 8} more in calibration.json"
    for title, setting, figures in (
        ("without", found["unweighted"], found["unweighted_held_out"]),
        ("with", found["chosen"], found["held_out"]),
    ):
        yield f"  {title:<10}{setting['aggregation']}, tie margin {setting['tie_margin']:.3g}: {_figures(figures)}"
    tried = found["settings_tried"]
    yield (
        f"  with - without: {change_text(found['against_unweighted'])}, the best of {tried['with']:,} settings against "
        f"the best of {tried['without']:,}"
    )


def change_text(found: Mapping[str, Any]) -> str:
    """Of two settings on the same samples, by a paired test."""
    change = {name: figure_text({**row, "value": row["difference"]}) for name, row in found["difference"].items()}
    return f"accuracy {change['accuracy']} (McNemar p = {found['mcnemar_p']:.3g}), kappa {change['kappa']}"


def _figures(ways: Mapping[str, Any]) -> str:
    figures = ways["unscored_as_wrong"]
    return ", ".join(f"{name.replace('_', '-')} {figure_text(figures[name])}" for name in figures)
