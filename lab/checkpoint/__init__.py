"""Checkpoints: written beside, then renamed; found and loaded only when they are whole."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, PreTrainedModel

import normalization  # noqa: F401  (registers our model types)
from lab.checkpoint import manifest
from lab.checkpoint.manifest import Manifest
from lab.config.sections import CheckpointConfig
from lab.errors import RunError

FOLDER = "checkpoints"
STATE = "state"
TRAINER = "trainer.json"
LATEST = "latest"
AUTO = "auto"
_STEP = re.compile(r"step-(\d+)")

WRITE_ERRORS = (OSError, SafetensorError, RuntimeError)
"""What a full disk looks like from Python, safetensors and torch.save."""


@dataclass
class Progress:
    """Where a run stands."""

    step: int = 0
    """Updates made."""
    tokens: int = 0
    """Targets predicted so far, over all ranks."""
    sequences: int = 0
    """Blocks taken from the data so far, over all ranks."""


def path_of(run_dir: Path, step: int) -> Path:
    """`checkpoints/step-000300`."""
    return run_dir / FOLDER / f"step-{step:06}"


def all_steps(run_dir: Path) -> list[int]:
    """Steps of a run's checkpoint folders, ascending; complete or not."""
    folder = run_dir / FOLDER
    names = (_STEP.fullmatch(path.name) for path in folder.iterdir()) if folder.is_dir() else ()
    return sorted(int(match[1]) for match in names if match)


def partial(folder: Path) -> Path:
    """Where a checkpoint is written before it gets its name."""
    return folder.with_name(f".{folder.name}.partial")


def begin(folder: Path) -> None:
    """Make an empty folder beside the checkpoint's final path, to be filled; then `finish` or `abandon`."""
    shutil.rmtree(partial(folder), ignore_errors=True)
    (partial(folder) / STATE).mkdir(parents=True)


def finish(folder: Path, description: Manifest) -> None:
    """Complete a filled checkpoint: manifest last, then the final name."""
    manifest.write(partial(folder), description)
    if folder.exists():
        remove(folder)
    os.replace(partial(folder), folder)


def abandon(folder: Path) -> None:
    """Remove what was written of a checkpoint."""
    shutil.rmtree(partial(folder), ignore_errors=True)


def remove(folder: Path) -> None:
    """Delete a checkpoint; from the first moment on it counts as incomplete."""
    (folder / manifest.NAME).unlink(missing_ok=True)
    shutil.rmtree(folder)


def clean(run_dir: Path) -> None:
    """Remove what a crash left of checkpoints that were being written."""
    for leftover in (run_dir / FOLDER).glob(".step-*.partial"):
        shutil.rmtree(leftover)


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


def retain(run_dir: Path, config: CheckpointConfig) -> None:
    """Delete the checkpoints that the retention rules let go."""
    kept = []
    for step in all_steps(run_dir):
        try:
            kept.append((step, manifest.read(path_of(run_dir, step)).eval_loss))
        except ValueError:
            continue  # incomplete: not ours to count, and not to delete either
    for step in expired(kept, config):
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


def write_progress(folder: Path, progress: Progress) -> None:
    """Keep where the run stands."""
    (folder / TRAINER).write_text(json.dumps(asdict(progress)), encoding="utf-8")


def read_progress(folder: Path) -> Progress:
    """Where the run stood."""
    return Progress(**json.loads((folder / TRAINER).read_text(encoding="utf-8")))


def resolve(path: str) -> str:
    """The newest whole checkpoint of a run folder; any other folder or hub name as it is.

    Raises:
        RunError: a run folder without a whole checkpoint.
    """
    folder = Path(path)
    return str(find(folder, LATEST, say=lambda text: None)) if (folder / FOLDER).is_dir() else path


def _refuse_incomplete(folder: Path) -> None:
    try:
        manifest.read(folder)
    except ValueError as error:
        raise RunError(str(error)) from error


def load_model(path: str | Path, *, dtype: str | torch.dtype = "auto", **options: Any) -> PreTrainedModel:
    """Load a causal LM with its scheme: the one loader of this project.

    Args:
        path: a checkpoint of ours, a run folder (its newest whole checkpoint), or any Hugging Face folder or hub name.
        dtype: of the weights; `auto` is what was saved.
        **options: for `AutoModelForCausalLM.from_pretrained`, such as `device_map` or `attn_implementation`.

    Raises:
        RunError: nothing that can be loaded, an incomplete checkpoint, or weights that are missing, superfluous or of
            another shape.
    """
    source = resolve(str(path))
    folder = Path(source)
    if _STEP.fullmatch(folder.name):
        _refuse_incomplete(folder)
    try:
        model, report = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, output_loading_info=True, **options)
    except OSError as error:
        what = "holds no checkpoint" if folder.is_dir() else "is no folder here, and no name that the hub answers to"
        raise RunError(f"{path} {what}: {str(error).splitlines()[0]}") from error
    faults = {kind: sorted(map(str, keys)) for kind, keys in report.items() if keys and kind != "error_msgs"}
    if faults:
        listed = "; ".join(f"{kind.replace('_', ' ')}: {', '.join(keys[:4])}" for kind, keys in faults.items())
        raise RunError(f"{source} does not hold the weights of its config: {listed}")
    return model
