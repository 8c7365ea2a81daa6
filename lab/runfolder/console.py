"""What a person sees while a run goes on: one progress line, rewritten on a terminal, plain lines elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from typing import Any

PLAIN_INTERVAL_S = 10.0
TERMINAL_INTERVAL_S = 0.1


class Console:
    """Prints on the main process only."""

    def __init__(self, *, enabled: bool) -> None:
        self._enabled = enabled
        self._terminal = sys.stdout.isatty()
        self._last_s = -float("inf")
        self._open_line = False

    def say(self, text: str = "") -> None:
        """A line that stays."""
        if self._enabled:
            self._end_line()
            print(text, flush=True)

    def warn(self, text: str) -> None:
        """A line that stays, marked as a warning."""
        self.say(f"warning: {text}")

    def progress(self, line: Callable[[], str], *, now: bool = False) -> None:
        """The progress line; seldom enough to be read, and always if `now`."""
        now_s = time.monotonic()
        interval_s = TERMINAL_INTERVAL_S if self._terminal else PLAIN_INTERVAL_S
        if not self._enabled or (now_s - self._last_s < interval_s and not now):
            return
        self._last_s = now_s
        if not self._terminal:
            print(line(), flush=True)
            return
        width = shutil.get_terminal_size().columns - 1
        print(f"\r\x1b[2K{line()[:width]}", end="", flush=True)
        self._open_line = True

    def _end_line(self) -> None:
        if self._open_line:
            print(flush=True)
            self._open_line = False


def table(rows: list[dict[str, Any]]) -> str:
    """Rows of equal keys as aligned text, the keys as its head; numbers to the right."""
    heads = list(rows[0])
    cells = [heads, *[[str(row[head]) for head in heads] for row in rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(heads))]
    lines = []
    for row in cells:
        aligned = [
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(aligned).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def count(value: float, *, billion: str = "B") -> str:
    """A large number as a person writes it: 3.6M, 1.2B; `billion="G"` for units of physics."""
    for size, unit in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, billion), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {unit}" if billion == "G" else f"{value / size:.3g}{unit}"
    return f"{value:g}"


def duration(seconds: float) -> str:
    """1:05, or 2:03:04."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
