"""The training state in a checkpoint's folder: the optimizer's, whole and by parameter, and what each rank alone knows.

    optimizer-00002-of-00008.safetensors    of every eighth parameter: exp_avg/NAME, exp_avg_sq/NAME, updates/NAME,
                                            and weight/NAME (float32) where the model computes in bf16
    rank-00002.pt                           random numbers and place in the data

Whole tensors do not depend on how the processes share the model, so that a run goes on on another number of them, or
under another sharding. The ranks share the writing.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from lab.parallel.collectives import rank_and_world
from lab.parallel.heartbeat import Heartbeat
from lab.parallel.sharding import MOMENTS, Sharding


def gather(
    parameters: Mapping[str, nn.Parameter], sharding: Sharding, heartbeat: Heartbeat
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Bring the wholes together, one at a time; all ranks call it.

    Returns:
        On the main rank all weights by name, float32 on the CPU, empty elsewhere; and this rank's share of the
        optimizer's state.
    """
    rank, world = rank_and_world()
    weights: dict[str, Tensor] = {}
    share: dict[str, Tensor] = {}
    for number, (name, parameter) in enumerate(parameters.items()):
        heartbeat.at("bringing a checkpoint together")
        wholes = {"weight": sharding.whole(parameter)}
        if rank == 0:
            weights[name] = wholes["weight"].cpu()
        if parameter.dtype == torch.float32:
            del wholes["weight"]
        if updates := sharding.updates(parameter):
            wholes |= {moment: sharding.whole(parameter, moment) for moment in MOMENTS}
            wholes["updates"] = torch.tensor(updates)
        if number % world == rank:
            share |= {f"{kind}/{name}": whole.cpu().contiguous() for kind, whole in wholes.items()}
    return weights, share


def write(folder: Path, share: dict[str, Tensor], position: dict[str, Any] | None, scaler: Any | None) -> None:
    """Write this rank's share of the optimizer's state, and what it alone knows."""
    rank, world = rank_and_world()
    save_file(share, folder / f"optimizer-{rank + 1:05}-of-{world:05}.safetensors")
    own = {"random": random_state(), "data": position, "scaler": scaler and scaler.state_dict()}
    torch.save(own, _rank_file(folder, rank))


def read_optimizer(folder: Path, parameters: Mapping[str, nn.Parameter], sharding: Sharding) -> None:
    """Put the optimizer's state back, from any number of files; every rank reads all of it, and keeps its part."""
    with ExitStack() as stack:
        where: dict[str, Any] = {}
        for path in sorted(folder.glob("optimizer-*.safetensors")):
            file = stack.enter_context(safe_open(path, framework="pt"))
            where |= dict.fromkeys(file.keys(), file)

        def tensor(kind: str, name: str) -> Tensor | None:
            key = f"{kind}/{name}"
            return where[key].get_tensor(key) if key in where else None

        for name, parameter in parameters.items():
            updates = tensor("updates", name)
            moments = {moment: whole for moment in MOMENTS if (whole := tensor(moment, name)) is not None}
            sharding.restore(parameter, tensor("weight", name), moments, 0.0 if updates is None else float(updates))


def read_own(folder: Path) -> dict[str, Any] | None:
    """What this rank wrote; None if there was no such rank."""
    path = _rank_file(folder, rank_and_world()[0])
    return torch.load(path, weights_only=True) if path.is_file() else None


def read_places(folder: Path) -> list[dict[str, Any]]:
    """The place in the data that each rank wrote."""
    return [torch.load(path, weights_only=True)["data"] for path in sorted(folder.glob("rank-*.pt"))]


def _rank_file(folder: Path, rank: int) -> Path:
    return folder / f"rank-{rank:05}.pt"


def random_state() -> dict[str, Any]:
    """The state of every generator that training may draw from, as plain values and tensors."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    numpy_state = (kind, np.asarray(keys).tolist(), *rest)
    state = {"python": random.getstate(), "numpy": numpy_state, "torch": torch.get_rng_state()}
    if torch.accelerator.is_available():
        state["device"] = _device_module().get_rng_state()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Draw on from where `random_state` was taken."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if "device" in state and torch.accelerator.is_available():
        _device_module().set_rng_state(state["device"])


def _device_module() -> Any:
    return torch.get_device_module(torch.accelerator.current_accelerator())
