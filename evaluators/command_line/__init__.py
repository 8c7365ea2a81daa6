"""From words to a command's settings with tyro: texts wrapped once, positionals by name, one line for what is wrong.

The one reader of all commands, those of the lab included.
"""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, TypeVar

import tyro
from tyro._errors import ParseErrorEvent, on_parse_error

from evaluators.command_line.fields import joined, registry
from evaluators.command_line.refusals import flags_of, known, unknown_word, why
from evaluators.errors import EXIT_USAGE
from evaluators.saying import say

REQUIRED = tyro.conf.arg(help_behavior_hint="(required)")
"""Of a flag that may stand in a file of settings instead, so that it has a default."""

T = TypeVar("T")


def read(
    kind: type[T],
    argv: Sequence[str],
    *,
    prog: str,
    default: T | None = None,
    elsewhere: Mapping[str, str] | None = None,
    flat: bool = False,
    console_outputs: bool = True,
) -> T:
    """The settings that words stand for.

    Args:
        kind: a dataclass, a docstring under each field.
        argv: the words.
        prog: the command's name, for messages.
        default: settings that the words are laid over.
        elsewhere: flags that are read before, and only listed here -> their help.
        flat: sections are not part of their flags' names.
        console_outputs: whether this process says what is wrong.

    Raises:
        SystemExit: help was asked for (0), or a word is unknown, malformed or missing (2); it is said.
    """
    flags = flags_of(kind, flat=flat) | {name: (text, str) for name, text in (elsewhere or {}).items()}
    # Before anything else: a flag with a typo leaves its own missing, and the typo is what to tell.
    ours = argv[: argv.index("--")] if "--" in argv else argv
    strays = [word for word in ours if word.startswith("--") and not known(word, flags)]
    rest: list[str] = []
    if not strays or {"-h", "--help"} & set(ours):
        settings, rest = _read(kind, argv, prog, default, elsewhere or {}, flat, console_outputs)
    if wrong := strays or rest:
        _end(unknown_word(wrong[0], argv, flags, prog), console_outputs)
    return settings


def read_known(kind: type[T], argv: Sequence[str], *, prog: str) -> tuple[T, list[str]]:
    """As `read`, and the words that belong to none of the flags."""
    return _read(kind, argv, prog, None, {}, False, True)


def _read(
    kind: type[T],
    argv: Sequence[str],
    prog: str,
    default: T | None,
    elsewhere: Mapping[str, str],
    flat: bool,
    console_outputs: bool,
) -> tuple[T, list[str]]:
    given: dict[str, Any] = {} if default is None else {"default": default}
    columns = min(shutil.get_terminal_size().columns, 100) - 1
    paragraphs = (kind.__doc__ or "").split("\n\n")

    def refuse(event: ParseErrorEvent) -> None:
        if (text := why(event, argv)) is not None:
            _end(text, console_outputs)

    with on_parse_error(refuse):
        return tyro.cli(
            kind,
            args=list(argv),
            prog=prog,
            # tyro joins lines that begin with a letter.
            description="\n\n".join(textwrap.indent(textwrap.fill(joined(text), columns), " ") for text in paragraphs),
            config=(tyro.conf.PositionalMetavarFromFieldName, *([tyro.conf.OmitArgPrefixes] if flat else [])),
            registry=registry(kind, elsewhere),
            return_unknown_args=True,
            console_outputs=console_outputs,
            **given,
        )


def _end(text: str, console_outputs: bool) -> NoReturn:
    if console_outputs:
        say(f"error: {text}", file=sys.stderr)
    raise SystemExit(EXIT_USAGE)
