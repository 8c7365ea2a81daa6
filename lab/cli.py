"""`depthlab SUBCOMMAND`. Imports lazily: `--help` answers before torch would be loaded."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module

from lab.errors import EXIT_ERROR, of_the_disk
from lab.quiet import print_any_name

PROG = "depthlab"
EXIT_INTERRUPTED = 130
EXIT_PIPE = 141
"""The reader of the output went away, as a shell tells it of SIGPIPE."""
COMMANDS = {
    "pretrain": ("lab.pretrain", "train a causal LM with a normalization scheme, in one process"),
    "describe": ("lab.commands.describe", "print the normalization plan of a checkpoint, layer by layer"),
    "diagnose": (
        "lab.diagnostics.command",
        "measure what each layer of a checkpoint, or of any causal LM, contributes",
    ),
    "report": ("lab.report.command", "turn runs into one page to look at: training, layers by checkpoint, comparison"),
    "compare": ("lab.report.compare_command", "print the final figures of runs side by side, pooled over seeds"),
    "prune": (
        "lab.commands.prune",
        "write a checkpoint without some of its layers, chosen by you or by what they contribute",
    ),
    "export": ("lab.commands.export", "write a checkpoint that loads without depthlab: stock, or with its own code"),
    "convert": ("lab.commands.convert", "turn a Pre-LN checkpoint into LayerNorm Scaling that computes the same"),
    "launch": ("launch.command", "train on many processes and machines: presets, memory estimate, stop and resume"),
    "judge": ("evaluators.command", "judge model outputs with a network of LLM reviewers"),
    "demo": ("lab.commands.demo", "train a small deep model with three schemes on built-in text, and compare"),
}
"""Subcommand -> (module with `main(argv, prog=...)`, what it does)."""


def usage() -> str:
    """The text of `depthlab --help`."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        [
            f"usage: {PROG} SUBCOMMAND ...",
            "",
            "An LLM training-dynamics and evaluation lab.",
            "",
            *lines,
            "",
            f"{PROG} SUBCOMMAND --help tells more. Several processes: accelerate launch lab/pretrain.py ...",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Dispatch to a subcommand; the exit code is its own, 2 for a wrong one."""
    print_any_name()
    try:
        try:
            return _dispatch(argv)
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Who reads, such as `head`, has seen enough. What is still buffered goes nowhere, or Python would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE
    except OSError as error:
        if (text := of_the_disk(error)) is None:
            raise
        print(f"error: {text}", file=sys.stderr)
        if error.filename is None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_ERROR


def _dispatch(argv: Sequence[str] | None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        return 0 if words else 2
    if words[0] == "--version":
        from importlib.metadata import version

        print(f"{PROG} {version(PROG)}")
        return 0
    name = words[0]
    if name not in COMMANDS:
        near = get_close_matches(name, COMMANDS, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        print(f"error: unknown subcommand {name!r}.{hint} Choose from {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    return import_module(COMMANDS[name][0]).main(words[1:], prog=f"{PROG} {name}")


if __name__ == "__main__":
    sys.exit(main())
