"""Which of a run's checkpoints stay, which are let go, and which are set aside."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from lab.checkpoint import manifest
from lab.checkpoint.folder import FOLDER, SUPERSEDED, all_steps, path_of, remove, step_of
from lab.checkpoint.manifest import DamagedError
from lab.config.sections import CheckpointConfig
from lab.runfolder.folder import DIAGNOSTICS


def expired(kept: Iterable[tuple[int, float | None]], config: CheckpointConfig) -> list[int]:
    """Steps whose checkpoints the retention rules let go.

    Args:
        kept: (step, held-out loss or None) of every checkpoint.
        config: last k, best, every m steps; a checkpoint that any rule names stays.
    """
    known = sorted(kept)
    if config.keep_last is None:
        return []
    stays = {step for step, _ in known[-config.keep_last :]}
    if config.keep_every is not None:
        stays |= {step for step, _ in known if step % config.keep_every == 0}
    measured = [(loss, step) for step, loss in known if loss is not None]
    if config.keep_best and measured:
        stays.add(min(measured)[1])
    return [step for step, _ in known if step not in stays]


def retain(
    run_dir: Path,
    config: CheckpointConfig,
    say: Callable[[str], None] = lambda text: None,
    *,
    awaited: Callable[[Path], bool] = lambda folder: False,
) -> None:
    """Delete the checkpoints that the retention rules let go, but those that something else still waits to read;
    `say` is told of one that cannot be deleted."""
    kept = []
    for step in all_steps(run_dir):
        try:
            kept.append((step, manifest.read(path_of(run_dir, step)).eval_loss))
        except DamagedError:
            continue  # incomplete: not ours to count, and not to delete either
    for step in expired(kept, config):
        if awaited(path_of(run_dir, step)):
            continue
        try:
            remove(path_of(run_dir, step))
        except OSError as error:
            say(f"the old checkpoint of step {step} cannot be deleted ({error}); delete it by hand")


def keeps_no_best(eval_every: int, config: CheckpointConfig, steps: int) -> str | None:
    """Why `keep_best` has less to choose from than it seems: it knows checkpoints that were evaluated alone."""
    if not config.keep_best or config.keep_last is None or not 0 < config.every < steps:
        return None
    both = math.lcm(config.every, eval_every) if eval_every else steps
    if both == config.every:
        return None
    which = f"of the checkpoints every {both} steps and the last" if both < steps else "of the last checkpoint"
    return (
        f"--checkpoint.keep-best chooses among those that were evaluated, and the held-out loss is known {which} alone "
        f"(--checkpoint.every {config.every}, --eval.every {eval_every}): let the second divide the first"
    )


def set_aside_after(run_dir: Path, step: int) -> list[int]:
    """Before a run goes on from `step`, move its later checkpoints to `checkpoints/superseded/`, where `latest` does
    not look, and what was measured on them to `diagnostics/superseded/`, where no report does: they belong to a course
    that the run leaves.

    Returns:
        The checkpoints' steps.
    """
    later = [other for other in all_steps(run_dir) if other > step]
    aside = run_dir / FOLDER / SUPERSEDED
    records = [
        path for path in (run_dir / DIAGNOSTICS).glob("step-*") if (of := step_of(path.with_suffix(""))) and of > step
    ]
    if records:
        # A record names the file beside it, so both keep their names, and each course has a folder of its own.
        folder = _free(run_dir / DIAGNOSTICS / SUPERSEDED)
        folder.mkdir()
        for path in sorted(records):
            os.replace(path, folder / path.name)
    for other in later:
        aside.mkdir(exist_ok=True)
        os.replace(path_of(run_dir, other), _free(aside / path_of(run_dir, other).name))
    return later


def _free(path: Path) -> Path:
    """A name that is not taken yet: the path, or `path-2`, `path-3`."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free


def bytes_set_aside(run_dir: Path) -> int:
    """Size of `checkpoints/superseded/`, which nothing deletes by itself."""
    return sum(path.stat().st_size for path in (run_dir / FOLDER / SUPERSEDED).rglob("*") if path.is_file())
