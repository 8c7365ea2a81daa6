"""`depthlab judge SUBCOMMAND`. Imports lazily, as the program around it does."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module

from evaluators.errors import EXIT_ERROR, EXIT_USAGE, ConfigError, UserError
from evaluators.saying import say
from evaluators.storing import one_line

COMMANDS = {
    "run": ("evaluators.commands.run", "judge a file of pairs with a network of LLM reviewers"),
    "show": ("evaluators.commands.show", "print a run's summary, or one sample's whole network"),
    "metrics": ("evaluators.commands.metrics", "agreement with people and biases, with intervals; two runs compared"),
    "report": ("evaluators.commands.report", "one HTML file: figures, disagreements, every sample's network"),
    "sweep": ("evaluators.commands.sweep", "widths, depths, connections, aggregations: agreement for what cost"),
    "calibrate": (
        "evaluators.commands.calibrate",
        "choose tie margin, aggregation and weights on one part, report on the other",
    ),
    "power": ("evaluators.commands.power", "how many samples tell two judges apart"),
    "leaderboard": (
        "evaluators.commands.leaderboard",
        "rank the systems that wrote the responses: Bradley-Terry and win rates",
    ),
    "pairs": ("evaluators.commands.pairs", "let two checkpoints answer the same prompts, and judge the answers"),
    "annotate": ("evaluators.commands.annotate", "people label the pairs in a browser, with the reviews at hand"),
    "cache": ("evaluators.commands.cache", "look at the cache of paid replies, and prune it"),
}
"""Subcommand -> (module with `main(argv, prog=...)`, what it does)."""


def usage(prog: str) -> str:
    """The text of `depthlab judge --help`."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        [
            f"usage: {prog} SUBCOMMAND ...",
            "",
            "Judge model outputs with WideDeep, a wide and deep network of LLM reviewers (arXiv:2308.01862).",
            "",
            *lines,
            "",
            f"{prog} SUBCOMMAND --help tells more.",
        ]
    )


def main(argv: Sequence[str], *, prog: str) -> int:
    """Dispatch; errors of users are one message, without a traceback.

    Returns:
        The subcommand's exit code: 0, 1 for a run that cannot start or go on, 2 for impossible settings, 75 for one
        that was asked to stop and has saved everything.
    """
    words = list(argv)
    if not words or words[0] in ("-h", "--help"):
        say(usage(prog))
        raise SystemExit(0 if words else EXIT_USAGE)
    name = words[0]
    if name not in COMMANDS:
        near = get_close_matches(name, COMMANDS, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        say(f"error: unknown subcommand {name!r}.{hint} Choose from {', '.join(COMMANDS)}", file=sys.stderr)
        return EXIT_USAGE
    try:
        return import_module(COMMANDS[name][0]).main(words[1:], prog=f"{prog} {name}")
    except UserError as error:
        say(f"error: {one_line(str(error))}", file=sys.stderr, flush=True)
        return EXIT_USAGE if isinstance(error, ConfigError) else EXIT_ERROR
