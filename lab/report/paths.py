"""What a report or a comparison is asked of, as far as it can be told before records, and torch with them, are read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from lab.checkpoint.search import of_another_kind
from lab.errors import ConfigError, RunError


def check(paths: Sequence[str]) -> None:
    """Refuse what is no run, and a run that is named twice.

    Raises:
        ConfigError: one is named twice.
        RunError: there is nothing of the kind at a path.
    """
    seen: set[str] = set()
    for path in paths:
        if (place := os.path.realpath(path)) in seen:
            raise ConfigError(f"{path}: named twice; name each run once")
        seen.add(place)
        check_one(Path(path))


def check_one(path: Path) -> None:
    """Refuse what is no folder of a run and no record. Raises RunError."""
    if path.suffix == ".json" and not path.is_dir():
        return
    if not path.is_dir():
        raise RunError(
            f"{path}: no run folder and no record; give the folder that depthlab pretrain wrote (--run-dir), or measure"
            " a model with depthlab diagnose MODEL and give the .json record that it names"
        )
    if (other := of_another_kind(path)) is not None:
        raise RunError(f"{path}: {other}")
