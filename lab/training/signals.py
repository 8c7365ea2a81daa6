"""Asking a run to stop after its step: SIGTERM, SIGUSR1 (Slurm's, before the time limit), Ctrl-C, or a file."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

EXIT_STOPPED = 75
"""Exit code of a run that was asked to stop and has written a checkpoint (EX_TEMPFAIL: try again later)."""

STOP_FILE = "stop"
"""A file of this name in the run's folder asks for a stop, from any machine that sees the folder."""


SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class StopRequest:
    """While it is entered, remembers the first signal that asks for a stop; and looks for the stop file.

    Launchers and batch systems may send theirs more than once, so more of them change nothing; a second Ctrl-C ends
    the process at once. Signals are given back afterwards to whoever had them. Python lets only the main thread have
    them: in another one the file alone asks.
    """

    def __init__(self, run_dir: Path, *, looks_for_file: bool) -> None:
        self._asked = False
        self._file = run_dir / STOP_FILE
        self._looks_for_file = looks_for_file
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._remember) for number in SIGNALS}
        return self

    def __exit__(self, *failure: object) -> None:
        for number, handler in self._before.items():
            # None: it was set by something that is not Python, and cannot be put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self._asked and number == signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self._asked = True

    def __bool__(self) -> bool:
        return self._asked or (self._looks_for_file and self._file.exists())

    def honoured(self) -> None:
        """The run has stopped: whoever asked by a file need not take it back."""
        if self._looks_for_file:
            self._file.unlink(missing_ok=True)


def ignore_repeats() -> None:
    """From the end of a run to that of its process: a request that comes again must not change the exit code."""
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
