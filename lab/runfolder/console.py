"""What a person sees while a run goes on: one progress line, rewritten on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress

PLAIN_INTERVAL_S = 10.0
TERMINAL_INTERVAL_S = 0.1


class Console:
    """Prints on the main process only. Where standard output takes no more (a pipe that was closed, a full disk), the
    run goes on without it.
    """

    def __init__(self, *, enabled: bool) -> None:
        self._enabled = enabled
        self._terminal = sys.stdout.isatty()
        self._last_s = -float("inf")
        self._open_line = False

    def say(self, text: str = "") -> None:
        """A line that stays."""
        if self._enabled:
            self._print(f"\n{text}\n" if self._open_line else f"{text}\n")
            self._open_line = False

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
            self._print(f"{line()}\n")
            return
        width = shutil.get_terminal_size().columns - 1
        self._print(f"\r\x1b[2K{line()[:width]}")
        self._open_line = True

    def _print(self, text: str) -> None:
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except OSError as error:
            self._enabled = False
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (what waits in the old one would fail again at the end)
            with suppress(OSError):
                print(
                    f"warning: standard output takes no more ({error.strerror or error}); the run goes on without it",
                    file=sys.stderr,
                    flush=True,
                )
