"""What a person sees while samples are judged: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from evaluators.saying import say
from evaluators.storing import printable

PLAIN_INTERVAL_S = 10.0


class ProgressLine:
    """done / unscored / cost so far / time left."""

    def __init__(self, total: int, done: int, status: Callable[[], str]) -> None:
        self._total = total
        self._first = self._done = done
        self._status = status
        self._began_s = self._told_s = time.monotonic()
        self._bar: Progress | None = None
        if sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("judging"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[status]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task("", total=total, completed=done, status=status())

    def __enter__(self) -> ProgressLine:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self) -> None:
        """One more sample is done."""
        self._done += 1
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, status=self._status())
            return
        now = time.monotonic()
        if now - self._told_s >= PLAIN_INTERVAL_S:
            self._told_s = now
            pace_s = (now - self._began_s) / (self._done - self._first)
            left = duration((self._total - self._done) * pace_s)
            self.say(f"{self._done:,}/{self._total:,} | {self._status()} | {left} left")

    def say(self, text: str) -> None:
        """A line that stays."""
        if self._bar is not None:
            self._bar.console.print(printable(text), markup=False, highlight=False)
        else:
            say(text, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """1:05, or 2:03:04."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
