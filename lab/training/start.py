"""Where a run begins: anew, or from a checkpoint. Decided once, by rank 0, and handed to all.

What `--resume` names becomes one checkpoint, whose own `config.yaml` gives the settings that flags then override. The
command line is read twice: before the processes have met, with a look at names and sizes (every process must know how
it is to compute), and by the main rank alone when it is the folder's only writer, with a look at every byte.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.checkpoint import manifest
from lab.checkpoint.folder import path_of
from lab.checkpoint.progress import Progress, read_progress
from lab.checkpoint.search import Check, find_or_none, run_of
from lab.config import read
from lab.config.names import flat
from lab.config.presets import check_preset
from lab.config.resume import differences
from lab.config.sections import RunConfig
from lab.data.sources import resolve_source
from lab.errors import ConfigError, RunError, UserError
from lab.runfolder.folder import CONFIG, refuse_existing

Say = Callable[[str], None]


def _quiet(text: str) -> None:
    """For a look that another one follows."""


def parse(argv: Sequence[str], *, prog: str, check: Check = manifest.complete, say: Say = _quiet) -> RunConfig:
    """The settings of a command line; with `--resume`, over those of the checkpoint that it names.

    Raises:
        UserError: an impossible setting, or nothing to go on from.
        SystemExit: as `lab.config.read.parse`.
    """

    def stored(resume: str, run_dir: str) -> RunConfig | None:
        try:
            checkpoint = find_or_none(Path(run_dir), resume, say, check)
            if checkpoint is None:
                return None
            own = str(run_of(checkpoint) or RunConfig().run_dir)
            return dataclasses.replace(settings_of(checkpoint), run_dir=own, resume=None)
        except UserError:
            if os.environ.get("RANK", "0") == "0":
                raise
            return None  # what this process alone cannot find is told with its rank, once all have met

    return read.parse(argv, prog=prog, stored=stored)


def check_early(run: RunConfig) -> None:
    """What can be told of a run that starts before torch is loaded; of several processes each may see other files, so
    those tell it when they have met.

    Raises:
        UserError: the scheme does not fit the preset's layers, the folder is taken, or the text is not there.
    """
    if run.resume is None and run.model.config is None and run.model.checkpoint is None:
        try:
            run.normalization.spec().plans(check_preset(run.model.preset).layers)
        except ValueError as error:
            raise ConfigError(f"--normalization.scheme {run.normalization.scheme}: {error}") from error
    if run.resume is None and os.environ.get("WORLD_SIZE", "1") == "1":
        refuse_existing(Path(run.run_dir))
        resolve_source(run.data)


def settings_of(checkpoint: Path) -> RunConfig:
    """The settings with which a checkpoint was trained: its own `config.yaml`, or its run's for an older one.

    Raises:
        RunError: there is neither.
    """
    folder = run_of(checkpoint)
    for place in (checkpoint, *([folder] if folder else [])):
        if (place / CONFIG).is_file():
            return read.load(place / CONFIG)
    raise RunError(
        f"--resume {checkpoint}: there is no {CONFIG} in it nor in the folder of its run, so nothing says how it was "
        f"trained; copy that of its run into it. To start from its weights alone: --model.checkpoint {checkpoint}"
    )


@dataclass(frozen=True)
class Start:
    """Where a run begins."""

    run: RunConfig
    """The settings, all of them. `resume` is the checkpoint that a branch begins from, else None: read back as
    `--config`, they are the same run again."""
    checkpoint: Path | None = None
    """What it goes on from; it is whole."""
    position: Progress = field(default_factory=Progress)
    """Where that stands."""
    changed: tuple[str, ...] = ()
    """Settings that the checkpoint was trained without, each as `optim.lr: 0.001 -> 0.0001`."""
    branch: str | None = None
    """Of which run, at which step, if it is another run's checkpoint."""

    @classmethod
    def of(cls, run: RunConfig, say: Say) -> Start:
        """From settings whose `resume` is `latest`, `auto`, a run's folder, a checkpoint, or None.

        Raises:
            UserError: a folder that is taken; nothing to go on from; settings of another run.
        """
        folder = Path(run.run_dir)
        if run.resume is None:
            refuse_existing(folder)
            return cls(run)
        checkpoint = find_or_none(folder, run.resume, say)
        if checkpoint is None:
            if not (folder / CONFIG).is_file():
                refuse_existing(folder)
            return cls(dataclasses.replace(run, resume=None))
        stored = settings_of(checkpoint)
        changed = tuple(differences(stored, run))
        position = read_progress(checkpoint, stored)
        origin = run_of(checkpoint)
        if origin is None or origin.resolve() != folder.resolve():
            refuse_existing(folder)
            branch = f"{(origin or checkpoint).resolve()} at step {position.step}"
            return cls(
                dataclasses.replace(run, resume=str(checkpoint.resolve())), checkpoint, position, changed, branch
            )
        if checkpoint.resolve() != path_of(folder, position.step).resolve():
            raise RunError(
                f"--resume {run.resume}: was set aside when {folder} took another course, and the records there are "
                "that one's; go on with it as a branch, in another --run-dir"
            )
        return cls(dataclasses.replace(run, resume=stored.resume), checkpoint, position, changed)

    def session(self) -> dict[str, Any] | None:
        """For environment.json; None for a run that starts."""
        if self.checkpoint is None:
            return None
        return {
            "from": str(self.checkpoint),
            "step": self.position.step,
            "changed": list(self.changed),
            "branch": self.branch,
        }


_BEFORE = (
    "run_dir",
    "model.attention",
    "optim.clip",
    "train.precision",
    "train.micro_batch",
    "train.global_batch",
    "log.trackers",
)
"""Settings with which the processes met."""


def refuse_others(mine: RunConfig, found: RunConfig) -> None:
    """Refuse settings that a process was set up without: the processes meet before the checkpoint is verified.

    Raises:
        ConfigError: names the first.
    """
    before, after = flat(dataclasses.asdict(mine)), flat(dataclasses.asdict(found))
    for name in _BEFORE:
        if before[name] != after[name]:
            raise ConfigError(
                f"--{name.replace('_', '-')}: this process began with {before[name]}, and the run goes on with "
                f"{after[name]}; give the flag, the same on every machine"
            )
