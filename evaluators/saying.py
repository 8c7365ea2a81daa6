"""The one way in which lines go to a terminal: what texts of models, data and servers hold is shown, never obeyed."""

from __future__ import annotations

from typing import TextIO

from evaluators.storing import printable


def say(text: str, *, file: TextIO | None = None, flush: bool = False) -> None:
    """`print`, without the signs by which a text could move the cursor, colour the screen or write to the clipboard."""
    print(printable(text), file=file, flush=flush)
