from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from evaluators import command_line
from evaluators.commands.bootstrap import check_bootstrap
from evaluators.errors import RunError
from evaluators.running.metrics_file import write_statistics
from evaluators.saying import say
from evaluators.showing.figures import score_text


@dataclass(frozen=True)
class ReportCommand:
    """One HTML file of a run: its figures, where judge and people disagree, each sample's network to open and read.

    The file needs no other file and asks nothing of any server. The figures go into the run's metrics.json too.
    """

    run: Annotated[str, tyro.conf.Positional]
    """The run's folder."""
    out: str | None = None
    """The file; RUN/report.html if not given."""
    draws: int = 10_000
    """Draws of the bootstrap."""
    seed: int = 0
    """Seed of the bootstrap."""

    def __post_init__(self) -> None:
        check_bootstrap(self.draws, self.seed)


def main(argv: Sequence[str], *, prog: str) -> int:
    """`depthlab judge report`. Raises UserError where the run cannot be read, or the file not written."""
    wanted = command_line.read(ReportCommand, argv, prog=prog)
    from evaluators.showing.report import report

    began_s = time.monotonic()
    page, found = report(Path(wanted.run), draws=wanted.draws, seed=wanted.seed)
    path = Path(wanted.run) / "report.html" if wanted.out is None else Path(wanted.out)
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise RunError(f"--out {path}: {error.strerror}; name a file, in a folder that is there") from error
    write_statistics(Path(wanted.run), found)
    say("\n".join(score_text(found)))
    say(f"report      {path}, {path.stat().st_size / 1e6:.1f} MB, {time.monotonic() - began_s:.1f} s")
    return 0
