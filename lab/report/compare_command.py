"""`depthlab compare RUN RUN ...`: the table of final figures in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from evaluators import command_line

if TYPE_CHECKING:
    from lab.report.compare import Interval

Justify = Literal["left", "right"]
NAME_WIDTH, COLUMN_WIDTH = 24, 18
"""Characters of the terminal that the first column and each other one are given."""


@dataclass(frozen=True)
class Compare:
    """Final figures of runs, with differences to the first; runs that differ by their seed only are pooled."""

    paths: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN RUN [RUN ...]")]
    """Run folders; or records (.json) of any model that depthlab diagnose has measured."""


def main(argv: Sequence[str], *, prog: str) -> int:
    """Exit code 0; 1 where there is nothing to read; 2 for an impossible setting."""
    from lab.errors import ConfigError, UserError, tell
    from lab.light import without_torch

    try:
        wanted = command_line.read(Compare, argv, prog=prog)
        if len(wanted.paths) < 2:
            raise ConfigError("name at least two runs; depthlab report shows a single one")
        with without_torch():
            from lab.report.paths import check

            check(wanted.paths)
        _print(list(wanted.paths))
    except UserError as error:
        return tell(error)
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
    finals = compare.final_figures(groups)

    class Whole(Console):
        def on_broken_pipe(self) -> None:
            raise  # noqa: PLE0704  (in the handler of rich, which would end the program here)

    console = Whole(highlight=False, soft_wrap=False)

    # More columns than the terminal can show come in tables one below the other.
    def table(title: str, first: str, names: list[str], rows: list[tuple[str, list[str]]], *, justify: Justify) -> None:
        per_table = max(1, (console.width - NAME_WIDTH) // COLUMN_WIDTH)
        for start in range(0, len(names), per_table):
            part = slice(start, start + per_table)
            shown = Table(title=Text(title if start == 0 else f"{title} (continued)"), title_justify="left")
            shown.add_column(first, overflow="fold")
            for name in names[part]:
                shown.add_column(Text(name, overflow="fold"), justify=justify, overflow="fold")
            for label, cells in rows:
                shown.add_row(Text(label), *map(Text, cells[part]))
            console.print(shown)

    def cell(value: Interval | None, change: Interval | None) -> str:
        return with_interval(value) + ("" if change is None else f"\n{with_interval(change, sign=True)}")

    names = [f"{group.label}\n{len(group.runs)} seed{'s' * (len(group.runs) > 1)}" for group in groups]
    rows = [
        (
            f"{final.label} {'' if final.unit == '1' else final.unit}".strip(),
            [cell(value, change) for value, change in zip(final.values, final.differences, strict=True)],
        )
        for final in finals
    ]
    table("Final figures, and differences to the first", "figure", names, rows, justify="right")
    if differing := compare.config_differences(runs):
        rows = [
            (name, ["–" if value is None else str(value) for value in values]) for name, values in differing.items()
        ]
        table("Settings that differ", "setting", [run.name for run in runs], rows, justify="left")
    for notice in compare.notices(groups):
        console.print(Text(notice))
    for run in runs:
        for notice in run.notices:
            console.print(Text(f"{run.name}: {notice}"))
    console.print(Text("± is a 95 % interval over seeds: Student's t for a figure, Welch's for a difference."))
