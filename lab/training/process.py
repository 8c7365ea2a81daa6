from __future__ import annotations

from dataclasses import dataclass

from accelerate import Accelerator

from lab.parallel.heartbeat import Heartbeat
from lab.runfolder.console import Console


@dataclass(frozen=True)
class Process:
    """This process among those that train together."""

    accelerator: Accelerator
    """Its device, and the others."""
    console: Console
    """Where the run speaks; the main process's is heard."""
    heartbeat: Heartbeat
    """Is told what the process is doing, so that one that hangs is found."""
