"""The checkpoint that a person or a run means: found only if it is whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lab.checkpoint import manifest
from lab.checkpoint.folder import FOLDER, all_steps, path_of
from lab.errors import RunError

LATEST = "latest"
AUTO = "auto"


def find_or_none(run_dir: Path, resume: str, say: Callable[[str], None]) -> Path | None:
    """As `find`; None for `auto` where there is no whole checkpoint."""
    if resume != AUTO:
        return find(run_dir, resume, say)
    try:
        return find(run_dir, LATEST, say)
    except RunError:
        return None


def find(run_dir: Path, resume: str, say: Callable[[str], None]) -> Path:
    """The checkpoint to go on from: the newest whole one for `latest`, or the one at a path.

    Args:
        run_dir: the run's folder.
        resume: `latest` or a path.
        say: is told of every checkpoint that is passed over, and why.

    Raises:
        RunError: there is no whole checkpoint, or the one that was named is damaged.
    """
    if resume != LATEST:
        if not Path(resume).is_dir():
            raise RunError(f"--resume {resume}: no such folder; give a checkpoint such as RUN/checkpoints/step-000300")
        if (Path(resume) / FOLDER).is_dir():
            return find(Path(resume), LATEST, say)
        try:
            manifest.verify(Path(resume))
        except ValueError as error:
            raise RunError(f"--resume {resume}: {error}") from error
        return Path(resume)
    for step in reversed(all_steps(run_dir)):
        folder = path_of(run_dir, step)
        try:
            manifest.verify(folder)
        except ValueError as error:
            say(f"passing over a checkpoint: {error}")
            continue
        return folder
    raise RunError(f"--resume latest: no whole checkpoint in {run_dir / FOLDER}; leave --resume out to start anew")


def resolve(path: str) -> str:
    """The newest whole checkpoint of a run folder; any other folder or hub name as it is.

    Raises:
        RunError: a run folder without a whole checkpoint.
    """
    folder = Path(path)
    return str(find(folder, LATEST, say=lambda text: None)) if (folder / FOLDER).is_dir() else path
