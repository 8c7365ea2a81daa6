"""Where a run stands, kept in each checkpoint as `trainer.json`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

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


def write_progress(folder: Path, progress: Progress) -> None:
    """Keep where the run stands."""
    (folder / TRAINER).write_text(json.dumps(asdict(progress)), encoding="utf-8")


def read_progress(folder: Path) -> Progress:
    """Where the run stood."""
    return Progress(**json.loads((folder / TRAINER).read_text(encoding="utf-8")))
