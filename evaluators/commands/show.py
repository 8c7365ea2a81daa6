from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from evaluators import command_line
from evaluators.asking.ledger import LEDGER, Bill, read_bill
from evaluators.errors import RunError
from evaluators.running.folder import VERDICTS, read_records
from evaluators.running.tally import Tally
from evaluators.saying import say
from evaluators.showing.terminal import network_text, summary_text, verdict_text
from evaluators.storing import one_line


@dataclass(frozen=True)
class Show:
    """Print one sample's whole network: its roles, the reviews of every layer, and the verdict."""

    id: Annotated[str | None, tyro.conf.Positional] = None
    """The sample; without it, a summary of the run and a line for each sample."""
    out: str = "."
    """The run's folder."""


def main(argv: Sequence[str], *, prog: str) -> int:
    """`depthlab judge show`. Raises RunError where there is no such run or sample."""
    wanted = command_line.read(Show, argv, prog=prog)
    path = Path(wanted.out) / VERDICTS
    if not path.is_file():
        raise RunError(f"--out {wanted.out}: holds no {VERDICTS}; name the folder of a judge's run")
    if wanted.id is not None:
        for record in read_records(path):
            if wanted.id in (record["id"], one_line(record["id"])):
                say("\n".join(network_text(record)))
                return 0
        raise RunError(f"{path}: no sample has the id {wanted.id!r}; without an id, all are listed")
    tally, ledger = Tally(), path.with_name(LEDGER)
    bill = None if ledger.exists() else Bill()
    for record in read_records(path):
        tally.add(record)
        if bill is not None:
            bill.add_calls(record)
        say(f"{one_line(record['id'])}  {verdict_text(record)}")
    tally.bill = read_bill(ledger) if bill is None else bill
    say("\n".join(summary_text(tally, seconds=None)))
    return 0
