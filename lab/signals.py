"""Asking a run to stop: SIGTERM, SIGUSR1 (which Slurm sends before the time limit) and Ctrl-C end it after the step."""

from __future__ import annotations

import signal
from types import FrameType

EXIT_STOPPED = 75
"""Exit code of a run that was asked to stop and has written a checkpoint (EX_TEMPFAIL: try again later)."""


class StopRequest:
    """Remembers the first signal that asks for a stop; a second one ends the process at once."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
            signal.signal(number, self._remember)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.signal = signal.Signals(number)

    def __bool__(self) -> bool:
        return self.signal is not None
