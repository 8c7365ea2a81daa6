"""Asking a run to stop after its step: SIGTERM, SIGUSR1 (Slurm's, before the time limit), Ctrl-C, or a file."""

from __future__ import annotations

import signal
from pathlib import Path
from types import FrameType

EXIT_STOPPED = 75
"""Exit code of a run that was asked to stop and has written a checkpoint (EX_TEMPFAIL: try again later)."""

STOP_FILE = "stop"
"""A file of this name in the run's folder asks for a stop, from any machine that sees the folder."""


class StopRequest:
    """Remembers the first signal that asks for a stop, and looks for the stop file.

    Launchers and batch systems may send theirs more than once, so more of them change nothing; a second Ctrl-C ends
    the process at once.
    """

    def __init__(self, run_dir: Path, *, looks_for_file: bool) -> None:
        self._asked = False
        self._file = run_dir / STOP_FILE
        self._looks_for_file = looks_for_file
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
            signal.signal(number, self._remember)

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
