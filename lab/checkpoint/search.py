"""The checkpoint that a person or a run means: found only if it is whole."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

from lab.checkpoint import manifest
from lab.checkpoint.folder import FOLDER, SUPERSEDED, all_steps, is_ours, path_of
from lab.checkpoint.manifest import DamagedError, ForbiddenError, Manifest, OtherFormatError
from lab.errors import RunError
from lab.modes import check_readable

LATEST = "latest"
AUTO = "auto"

Check = Callable[[Path], Manifest]
"""`manifest.verify`, or `manifest.complete`, which reads no content. Raises DamagedError."""


def find_or_none(run_dir: Path, resume: str, say: Callable[[str], None], check: Check = manifest.verify) -> Path | None:
    """As `find`; None for `auto` where there is no checkpoint at all, whole or not."""
    if resume == AUTO and not _steps(run_dir, AUTO):
        return None
    return find(run_dir, resume, say, check)


def find(run_dir: Path, resume: str, say: Callable[[str], None], check: Check = manifest.verify) -> Path:
    """The checkpoint to go on from: the newest whole one for `latest` and `auto`, or what a path names.

    Args:
        run_dir: the run's folder.
        resume: `latest`, `auto`, a run's folder, or a checkpoint, also one that was set aside.
        say: is told of every checkpoint that is passed over, and why.
        check: what makes one whole.

    Raises:
        RunError: there is no whole checkpoint, or the one that was named is damaged, or the newest is of another
            version of depthlab or may not be read.
    """
    if resume in (LATEST, AUTO):
        return _newest(run_dir, resume, say, check)
    folder = Path(resume)
    if not folder.is_dir():
        raise RunError(
            f"--resume {resume}: no such folder; give a run, or a checkpoint such as RUN/{path_of(Path(), 300)}"
        )
    if (folder / FOLDER).is_dir() or ((folder / "config.yaml").is_file() and not is_ours(folder)):
        return _newest(folder, resume, say, check)
    try:
        check(folder)
    except DamagedError as error:
        raise RunError(f"--resume {resume}: {error}") from error
    return folder


def _newest(run_dir: Path, resume: str, say: Callable[[str], None], check: Check) -> Path:
    steps = _steps(run_dir, resume)
    passed: list[str] = []
    for step in reversed(steps):
        try:
            check(path_of(run_dir, step))
        except OtherFormatError as error:
            raise RunError(
                f"--resume {resume}: {error}. Nothing was changed; go on with that version, or name an older checkpoint"
            ) from error
        except ForbiddenError as error:
            raise RunError(f"--resume {resume}: {error}") from error
        except DamagedError as error:
            passed.append(str(error))
            continue
        for reason in passed:
            say(f"passing over a checkpoint: {reason}")
        return path_of(run_dir, step)
    if passed:
        raise RunError(
            f"--resume {resume}: none of the {len(steps)} checkpoints in {run_dir / FOLDER} is whole; the newest: "
            f"{passed[0]}. Nothing was changed; bring one back, or start anew in another --run-dir"
        )
    raise RunError(f"--resume {resume}: no whole checkpoint in {run_dir / FOLDER}; leave --resume out to start anew")


def _steps(run_dir: Path, resume: str) -> list[int]:
    folder = run_dir / FOLDER
    try:
        if folder.is_symlink() and not folder.exists():
            raise RunError(f"--resume {resume}: {folder} is a link to {folder.readlink()}, which is not there")
        return all_steps(run_dir)
    except OSError as error:
        raise RunError(f"--resume {resume}: {folder} cannot be read: {error.strerror or error}") from error


def no_model(path: str) -> str | None:
    """Why there is no model at a place, where that can be seen without opening it; None for names of the hub too."""
    place = Path(path)
    if place.is_symlink() and not place.exists():
        return f"is a link to {place.readlink()}, which is not there; fetch that, or name a checkpoint's folder"
    if place.is_dir() and not (place / "config.json").is_file() and not any(place.glob("*.gguf")):
        other = of_another_kind(place)
        what = f"it is {other}" if other else "name another folder"
        return f"holds no checkpoint: there is no config.json in it; {what}"
    return None


def refuse_no_model(path: str) -> None:
    """What can be told of a command's model before torch is loaded.

    Raises:
        RunError: a file, a link that leads nowhere, or a folder without a model.
    """
    place = Path(path)
    if place.is_file() and place.suffix != ".gguf":
        raise RunError(f"{path} is a file that is no model; name a checkpoint's folder")
    if not (place / FOLDER).is_dir() and (why := no_model(path)) is not None:
        raise RunError(f"{path} {why}")


def of_another_kind(folder: Path) -> str | None:
    """What a folder is that is no run's, and what it is good for, where its files tell."""
    if (folder / "verdicts.jsonl").is_file():
        return f"a judge's run; depthlab judge report {folder} shows it"
    if (folder / manifest.NAME).is_file():
        return "a checkpoint; give the folder of its run"
    return None


def run_of(checkpoint: Path) -> Path | None:
    """The folder of the run that a checkpoint belongs to, by where it stands or, if it is a link, where it leads to;
    None for one that was taken elsewhere."""
    for path in (checkpoint.absolute(), checkpoint.resolve()):
        above = path.parent.parent if path.parent.name == SUPERSEDED else path.parent
        if above.name == FOLDER:
            return above.parent
    return None


def resolve(path: str) -> str:
    """The newest whole checkpoint of a run folder, saying on standard error what it passes over; any other folder or
    hub name as it is.

    Raises:
        RunError: a run folder without a whole checkpoint, or a checkpoint that is incomplete or damaged, or one
            that may not be read.
    """
    folder = Path(path)
    if (folder / FOLDER).is_dir():
        try:
            if not _steps(folder, LATEST):
                raise RunError(f"{path} has no whole checkpoint yet")
            return str(_newest(folder, LATEST, _warn, manifest.verify))
        except RunError as error:
            raise RunError(str(error).replace("--resume latest", path)) from error
    if is_ours(folder):
        manifest.verify(folder)
    elif folder.is_dir():
        check_readable(folder)
    return path


@cache  # the same is said once
def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr, flush=True)
