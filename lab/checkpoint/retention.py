"""Which of a run's checkpoints stay, which are let go, and which are set aside."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from lab.checkpoint import manifest
from lab.checkpoint.folder import FOLDER, all_steps, path_of, remove
from lab.config.sections import CheckpointConfig


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


def retain(run_dir: Path, config: CheckpointConfig, awaited: Callable[[Path], bool] = lambda folder: False) -> None:
    """Delete the checkpoints that the retention rules let go, but those that something else still waits to read."""
    kept = []
    for step in all_steps(run_dir):
        try:
            kept.append((step, manifest.read(path_of(run_dir, step)).eval_loss))
        except ValueError:
            continue  # incomplete: not ours to count, and not to delete either
    for step in expired(kept, config):
        if not awaited(path_of(run_dir, step)):
            remove(path_of(run_dir, step))


def set_aside_after(run_dir: Path, step: int) -> list[int]:
    """Before a run goes on from `step`, move its later checkpoints to `checkpoints/superseded/`, where `latest` does
    not look: they belong to a course that the run leaves.

    Returns:
        Their steps.
    """
    later = [other for other in all_steps(run_dir) if other > step]
    aside = run_dir / FOLDER / "superseded"
    for other in later:
        aside.mkdir(exist_ok=True)
        target, number = aside / path_of(run_dir, other).name, 1
        while target.exists():
            number += 1
            target = aside / f"{path_of(run_dir, other).name}-{number}"
        os.replace(path_of(run_dir, other), target)
    return later
