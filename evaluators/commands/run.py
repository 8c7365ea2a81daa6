from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from evaluators.errors import EXIT_STOPPED
from evaluators.running.settings import parse
from evaluators.saying import say
from evaluators.showing.terminal import estimates_text, printable, refused_lines, summary_text


def main(argv: Sequence[str], *, prog: str) -> int:
    """`depthlab judge run`. Raises UserError as `Run` does."""
    config = parse(argv, prog=prog)
    from evaluators.running.run import Run  # after parsing: a wrong flag should not wait for it

    run = Run(config)
    network = run.network
    say(f"data        {config.data}: {run.total:,} samples" + (f"; {run.edition}" if run.edition else ""))
    for line in refused_lines(run.data.refused):
        say(line)
    say(f"judge       {printable(', '.join(judge.text for judge in config.judge))}")
    for place in dict.fromkeys(getattr(judge, "where", "") for judge in run.judges):
        if place:
            say(f"server      {printable(place)}")
    width = network.width if network.roles is None else len(network.roles) or network.width or 1
    say(
        f"network     {config.network.preset}: {width or f'{network.min_roles} to {network.max_roles}'} neurons x "
        f"{network.depth} layers, {network.connection} connection, {len(network.orders)} "
        f"order{'s' if network.both_orders else ''}, {network.aggregation}, tie margin {network.tie_margin:g}"
    )
    if config.money.dry_run:
        say("\n".join(estimates_text(run.estimates())))
        return 0
    began_s = time.monotonic()
    outcome = run.judge(lambda text: say(text, flush=True))
    for line in summary_text(outcome.tally, seconds=time.monotonic() - began_s):
        say(line)
    say(f"results     {Path(config.out) / 'verdicts.jsonl'}")
    if outcome.fruitless is not None:
        raise outcome.fruitless
    if outcome.stopped is None:
        return 0
    if not outcome.interrupted:
        raise outcome.stopped
    say(f"stopped     {outcome.stopped}: {outcome.tally.samples:,} of {outcome.total:,} samples are judged")
    say("            the same command goes on")
    return EXIT_STOPPED
