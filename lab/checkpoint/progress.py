"""Where a run stands, kept in each checkpoint as `trainer.json`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lab.config.sections import RunConfig

TRAINER = "trainer.json"


@dataclass
class Progress:
    """Where a run stands."""

    step: int = 0
    """Updates made."""
    tokens: int = 0
    """Targets predicted so far, over all ranks."""
    sequences: int = 0
    """Blocks taken from the data so far, over all ranks."""
    positions: int = 0
    """Positions trained on so far: those blocks' tokens, less what the end of a token budget cut off."""
    monitors: dict[str, Any] = field(default_factory=dict)
    """States of the monitors that have any."""


def write_progress(folder: Path, progress: Progress) -> None:
    """Keep where the run stands."""
    (folder / TRAINER).write_text(json.dumps(asdict(progress)), encoding="utf-8")


def read_progress(folder: Path, run: RunConfig) -> Progress:
    """Where the run stood.

    Args:
        folder: a checkpoint.
        run: its settings, which tell the positions that older checkpoints do not.
    """
    stored = json.loads((folder / TRAINER).read_text(encoding="utf-8"))
    if "positions" not in stored:
        taken = stored["sequences"] * run.data.block_length
        stored["positions"] = taken if run.train.tokens is None else min(taken, run.train.tokens)
    return Progress(**stored)
