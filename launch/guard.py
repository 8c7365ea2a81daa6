"""End a tree of processes; and, as a process of its own, do that when the one that should have done it is gone.

`python guard.py PID` reads its standard input, a pipe whose other end only the supervisor holds. When that
closes and PID still runs, the supervisor was killed.
"""

from __future__ import annotations

import signal
import sys
from contextlib import suppress

import psutil

GRACE_S = 5.0
"""Between SIGTERM and SIGKILL, in seconds."""


def end_tree(root: psutil.Process, *, grace_s: float = GRACE_S) -> None:
    """SIGTERM to a process and all its descendants, whatever sessions they are in; SIGKILL to those that stay."""
    # torchrun puts each rank into a session of its own, so a signal to the process group would not reach it.
    with suppress(psutil.NoSuchProcess):
        end([root, *root.children(recursive=True)], grace_s=grace_s)


def end(processes: list[psutil.Process], *, grace_s: float = GRACE_S) -> None:
    """The same for processes that are known."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(processes, timeout=grace_s)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=grace_s)


def main() -> None:
    """Wait for the end of standard input, then end the tree of the process that is named."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    try:
        root = psutil.Process(int(sys.argv[1]))
    except psutil.NoSuchProcess:
        return
    sys.stdin.buffer.read()
    # is_running compares the time of creation too: another process may have got the number.
    if root.is_running():
        end_tree(root)


if __name__ == "__main__":
    main()
