"""Compile DeepSpeed's C++ extensions, which its first start on a machine needs, without waiting for the dead.

PyTorch guards a compilation by a file `lock` that a killed process leaves behind, and every later start waits for it
for ever. Whoever compiles keeps that file open, which tells the living from the dead.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil
from filelock import FileLock
from torch.utils.cpp_extension import _get_build_directory

COMMUNICATION = "ShareMemCommBuilder"
"""Collectives between CPU processes of a machine."""
CPU_ADAM = "CPUAdamBuilder"
"""Adam on state that is kept in the machine's memory."""


def build(builder_name: str) -> None:
    """Compile and load one extension, or find it compiled; processes that come at the same time take turns."""
    from deepspeed.accelerator import get_accelerator

    builder = get_accelerator().create_op_builder(builder_name)
    if builder is None:  # this accelerator has none
        return
    folder = Path(_get_build_directory(builder.name, verbose=False))
    with FileLock(folder / "depthlab.lock"):
        lock = folder / "lock"
        if lock.exists() and not _open_files_contain(lock):
            lock.unlink(missing_ok=True)
        builder.load(verbose=False)


def _open_files_contain(path: Path) -> bool:
    wanted: Sequence[str] = (str(path), os.path.realpath(path))
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if any(file.path in wanted for file in process.open_files()):
                return True
    return False
