"""A run that goes on: all ranks read a checkpoint together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from accelerate import Accelerator
from transformers import PreTrainedModel

from lab.checkpoint import manifest, optimizer_state
from lab.checkpoint.folder import STATE
from lab.checkpoint.progress import Progress, read_progress
from lab.config.sections import RunConfig
from lab.parallel.sharding import Sharding
from lab.runfolder.console import Console


def restore(
    folder: Path,
    run: RunConfig,
    model: PreTrainedModel,
    sharding: Sharding,
    accelerator: Accelerator,
    console: Console,
) -> tuple[Progress, list[dict[str, Any]]]:
    """Optimizer and random numbers from a checkpoint, whose weights are in the model already.

    Returns:
        Where the run stands, and the places in the data of all ranks that there were.
    """
    described = manifest.read(folder)
    optimizer_state.read_optimizer(folder / STATE, dict(model.named_parameters()), sharding)
    now = accelerator.num_processes
    if sharding.name != described.sharding or now != described.world_size:
        console.say(
            f"{folder} was written by {_processes(described.world_size)} ({described.sharding}); going on with "
            f"{_processes(now)} ({sharding.name})"
        )
    own = optimizer_state.read_own(folder / STATE)
    if own is not None and now == described.world_size:
        optimizer_state.set_random_state(own["random"])
        if own["scaler"] is not None and accelerator.scaler is not None:
            accelerator.scaler.load_state_dict(own["scaler"])
    elif _has_dropout(model):
        console.warn("dropout draws anew on another number of processes; all else goes on exactly")
    return read_progress(folder, run), optimizer_state.read_places(folder / STATE)


def _processes(number: int) -> str:
    return f"{number} process{'es' if number > 1 else ''}"


def _has_dropout(model: PreTrainedModel) -> bool:
    names = ("attention_dropout", "attn_pdrop", "resid_pdrop", "embd_pdrop", "hidden_dropout")
    return any(getattr(model.config, name, 0.0) for name in names)
