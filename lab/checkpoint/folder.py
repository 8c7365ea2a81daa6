"""The folder of a checkpoint: written beside, then renamed, so that a name stands for a whole one."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from lab.checkpoint import manifest
from lab.checkpoint.manifest import Manifest
from lab.checkpoint.progress import TRAINER

FOLDER = "checkpoints"
SUPERSEDED = "superseded"
"""Folder in `checkpoints/`: of the courses that a run has left."""
STATE = "state"
_STEP = re.compile(r"step-(\d+)")

WRITE_ERRORS = (OSError, SafetensorError, RuntimeError)
"""What a full disk looks like from Python, safetensors and torch.save."""


def step_of(folder: Path) -> int | None:
    """The step in the name of a checkpoint's folder; None for any other folder."""
    match = _STEP.fullmatch(folder.name)
    return int(match[1]) if match else None


def is_ours(folder: Path) -> bool:
    """Whether a folder is, or was, a checkpoint of ours: by its name, or by a file that all of them have."""
    if step_of(folder) is not None:
        return folder.is_dir()
    return (folder / TRAINER).is_file() or ((folder / STATE).is_dir() and (folder / manifest.NAME).is_file())


def path_of(run_dir: Path, step: int) -> Path:
    """`checkpoints/step-000300`."""
    return run_dir / FOLDER / f"step-{step:06}"


def all_steps(run_dir: Path) -> list[int]:
    """Steps of a run's checkpoint folders, ascending; complete or not."""
    folder = run_dir / FOLDER
    steps = (step_of(path) for path in folder.iterdir()) if folder.is_dir() else ()
    return sorted(step for step in steps if step is not None)


def partial_of(folder: Path) -> Path:
    """Where a checkpoint is written before it gets its name."""
    return folder.with_name(f".{folder.name}.partial")


def begin(folder: Path) -> None:
    """Make an empty folder beside the checkpoint's final path, to be filled; then `finish` or `abandon`.

    Raises:
        OSError: it cannot be made, or what an earlier try has left there cannot be deleted.
    """
    partial = partial_of(folder)
    if partial.exists():
        shutil.rmtree(partial)
    (partial / STATE).mkdir(parents=True)


def finish(folder: Path, description: Manifest) -> None:
    """Complete a filled checkpoint: manifest last, then the final name."""
    manifest.write(partial_of(folder), description)
    if folder.exists():
        remove(folder)
    os.replace(partial_of(folder), folder)


def abandon(folder: Path) -> None:
    """Remove what was written of a checkpoint."""
    shutil.rmtree(partial_of(folder), ignore_errors=True)


def remove(folder: Path) -> None:
    """Delete a checkpoint; from the first moment on it is none any more.

    Raises:
        OSError: some of it cannot be deleted; `clean` tries again.
    """
    doomed = folder.with_name(f".{folder.name}.deleted.partial")
    shutil.rmtree(doomed, ignore_errors=True)
    os.replace(folder, doomed)
    shutil.rmtree(doomed)


def clean(run_dir: Path, say: Callable[[str], None] = lambda text: None) -> None:
    """Remove what a crash left of checkpoints that were being written or deleted, as far as it can be."""
    for leftover in (run_dir / FOLDER).glob(".step-*.partial"):
        try:
            shutil.rmtree(leftover)
        except OSError as error:
            say(f"{leftover} cannot be deleted ({error.strerror or error}); delete it by hand")
