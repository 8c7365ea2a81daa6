"""Run a launcher so that a signal asks the run to stop, what it ended with is told, and no process stays behind."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import psutil

from lab.runfolder import metrics
from lab.training.signals import EXIT_STOPPED, STOP_FILE
from launch import guard

CONFIG = "config.yaml"
"""As in `lab.runfolder.folder`, which brings torch: a supervisor should cost little memory."""
POLL_S = 0.5
SAME_REQUEST_S = 1.0
_PR_SET_CHILD_SUBREAPER = 36


class Requests:
    """The signals that this process got: the first asks the run to stop, the second ends it at once.

    What arrives within a second of the first is the same request: schedulers signal a job's processes and its script,
    which hands it on.
    """

    def __init__(self) -> None:
        self.received: list[signal.Signals] = []
        self._first_s = 0.0
        self._before = {
            number: signal.signal(number, self._remember) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
        }

    def _remember(self, number: int, frame: FrameType | None) -> None:
        now_s = time.monotonic()
        if not self.received:
            self._first_s = now_s
        elif now_s - self._first_s < SAME_REQUEST_S:
            return
        self.received.append(signal.Signals(number))

    def restore(self) -> None:
        """Give the signals back to whoever had them."""
        for number, handler in self._before.items():
            signal.signal(number, handler)


def supervise(command: Sequence[str], run_dir: Path, say: Callable[[str], None]) -> int:
    """Start a launcher in a session of its own and see it through.

    The first SIGTERM, SIGUSR1 or SIGINT makes the file `stop` in the run folder, for as long as the run goes on: a run
    that is still starting removes it once. The second one ends every process of the run.

    Args:
        command: the launcher; its processes never see the terminal's Ctrl-C.
        run_dir: the run's folder, on a file system that all machines see.
        say: is told what happens, a line at a time.

    Returns:
        0 when the run is complete, 75 when it was asked to stop and has saved, 128 + n when a second signal n ended
        it, else the launcher's own exit code.
    """
    before = metrics.read(run_dir)
    requests = Requests()
    _adopt_orphans()
    child = subprocess.Popen(command, start_new_session=True)
    watcher = subprocess.Popen(
        [sys.executable, guard.__file__, str(child.pid)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    asked = False
    try:
        while (code := _wait(child)) is None:
            if len(requests.received) > 1:
                say(f"a second signal ({requests.received[1].name}): ending every process of the run")
                return 128 + requests.received[1]
            if requests.received:
                if not asked:
                    say(
                        f"{requests.received[0].name}: asking the run to save and stop after its step; "
                        "the same again ends it at once"
                    )
                asked = True
                _ask_to_stop(run_dir)
    finally:
        _end_all(child, watcher)
        if asked:
            (run_dir / STOP_FILE).unlink(missing_ok=True)
        requests.restore()
    if code == 0:
        return 0
    if _stopped(before, metrics.read(run_dir)):
        say("stopped and saved; the same command with --resume auto goes on")
        return EXIT_STOPPED
    return code if code > 0 else 128 - code


def _wait(child: subprocess.Popen[bytes]) -> int | None:
    with suppress(subprocess.TimeoutExpired):
        return child.wait(POLL_S)
    return None


def _ask_to_stop(run_dir: Path) -> None:
    # Before the run has made its folder there is nothing to save, and a folder with a file in it would be refused.
    if (run_dir / CONFIG).exists():
        with suppress(OSError):  # a file system that hangs for a moment: asked again at the next look
            (run_dir / STOP_FILE).touch()


def _stopped(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> bool:
    """Whether the last record is a stop that was written since: a run that goes on may first take records back."""
    same = 0
    while same < min(len(before), len(after)) and before[same] == after[same]:
        same += 1
    return after[same:] != [] and after[-1].get("event") == "stopped"


def _adopt_orphans() -> None:
    """Become the parent of ranks whose launcher dies, so that they can be found and ended (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _end_all(child: subprocess.Popen[bytes], watcher: subprocess.Popen[bytes]) -> None:
    """Whatever is left of the run, then the watcher."""
    left = [process for process in psutil.Process().children(recursive=True) if process.pid != watcher.pid]
    guard.end(left)
    child.wait()
    if watcher.stdin is not None:
        watcher.stdin.close()
    watcher.wait()
