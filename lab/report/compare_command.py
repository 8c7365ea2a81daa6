"""`depthlab compare RUN RUN ...`: the table of final figures in a terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro


@dataclass(frozen=True)
class Compare:
    """Final figures of runs, with differences to the first; runs that differ by their seed only are pooled."""

    paths: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN RUN [RUN ...]")]
    """Run folders; or records (.json) of any model that depthlab diagnose has measured."""


def main(argv: Sequence[str], *, prog: str) -> int:
    """Exit code 0; 1 where there is nothing to read; 2 for an impossible setting."""
    from lab.errors import ConfigError, UserError

    try:
        wanted = tyro.cli(Compare, args=list(argv), prog=prog)
        if len(wanted.paths) < 2:
            raise ConfigError("name at least two runs; depthlab report shows a single one")
        _print(list(wanted.paths))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    return 0


def _print(paths: list[str]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from lab.report import compare
    from lab.report.numbers import with_interval
    from lab.report.read import read_all

    runs = read_all(paths)
    groups = compare.grouped(runs)
    console = Console(highlight=False, soft_wrap=False)
    table = Table(title=Text("Final figures, and differences to the first"), title_justify="left")
    table.add_column("figure")
    for group in groups:
        table.add_column(Text(f"{group.label}\n{len(group.runs)} seed{'s' * (len(group.runs) > 1)}"), justify="right")
    for final in compare.final_figures(groups):
        cells = [Text(f"{final.label} {'' if final.unit == '1' else final.unit}".strip())]
        for value, change in zip(final.values, final.differences, strict=True):
            more = "" if change is None else f"\n{with_interval(change, sign=True)}"
            cells.append(Text(with_interval(value) + more))
        table.add_row(*cells)
    console.print(table)
    if differing := compare.config_differences(runs):
        settings = Table(title=Text("Settings that differ"), title_justify="left")
        settings.add_column("setting")
        for run in runs:
            settings.add_column(Text(run.name))
        for name, values in differing.items():
            settings.add_row(Text(name), *(Text("–" if value is None else str(value)) for value in values))
        console.print(settings)
    for notice in compare.notices(groups):
        console.print(Text(notice))
    for run in runs:
        for notice in run.notices:
            console.print(Text(f"{run.name}: {notice}"))
    console.print(Text("± is a 95 % interval over seeds: Student's t for a figure, Welch's for a difference."))
