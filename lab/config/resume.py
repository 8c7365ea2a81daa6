"""A run that goes on: which of its settings may change."""

from __future__ import annotations

import dataclasses

from lab.config.names import flat
from lab.config.sections import RunConfig
from lab.errors import ConfigError

_FREE_ON_RESUME = ("run_dir", "resume", "eval", "monitors", "checkpoint", "log")
_FREE_FLAGS = (
    "data.workers",
    "data.cache_dir",
    "data.heldout_blocks",
    "train.micro_batch",
    "train.compile",
    "train.activation_checkpointing",
    "train.hang_timeout",
)
_FIXED_ON_RESUME = ("model", "normalization", "data", "train.seed")


def differences(stored: RunConfig, wanted: RunConfig) -> list[str]:
    """Settings that change what a run that goes on will compute, each as `train.steps: 300 -> 600`.

    Raises:
        ConfigError: model, normalization, data or seed differ: that would be another run.
    """
    before, after = flat(dataclasses.asdict(stored)), flat(dataclasses.asdict(wanted))
    names = [*after, *(name for name in before if name not in after)]
    changed = [name for name in names if before.get(name) != after.get(name)]
    told = []
    for name in changed:
        if name.split(".")[0] in _FREE_ON_RESUME or name in _FREE_FLAGS:
            continue
        if name.startswith("parallel.") and stored.parallel.engine is None:
            continue  # an older run's file does not say
        line = f"{name}: {before.get(name)} -> {after.get(name)}"
        if name in _FIXED_ON_RESUME or name.split(".")[0] in _FIXED_ON_RESUME:
            flag = "--" + name.replace("_", "-")
            raise ConfigError(f"{flag}: cannot change when a run goes on ({line}); start a new --run-dir for it")
        told.append(line)
    return told
