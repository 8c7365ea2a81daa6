"""Optimizers and learning-rate schedules."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from lab.config.sections import OptimConfig, length_in_steps
from lab.parallel.sharding import whole_shape

_OPTIMIZERS: dict[str, Any] = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}


def build_optimizer(model: nn.Module, config: OptimConfig, device: torch.device) -> torch.optim.Optimizer:
    """AdamW or Adam in two groups: with weight decay, and without (norms, biases, embeddings).

    A head that is tied to the embedding counts as an embedding.
    """
    embeddings = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters(recurse=False)}
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for parameter in model.parameters():
        is_matrix = len(whole_shape(parameter)) > 1 and id(parameter) not in embeddings
        (decayed if is_matrix else kept).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": kept, "weight_decay": 0.0},
    ]
    return _OPTIMIZERS[config.name](
        [group for group in groups if group["params"]],
        lr=config.lr,
        betas=config.betas,
        eps=config.eps,
        fused=device.type in ("cuda", "cpu", "mps", "xpu"),
    )


def learning_rate(step: int, steps: int, config: OptimConfig) -> float:
    """Learning rate of update `step` (1..steps).

    Linear from lr/warmup at update 1 to the peak at update `warmup`, then the schedule, which reaches floor * lr at
    the very last update. No update has a learning rate of zero unless the floor is zero.
    """
    warmup, decay = (length_in_steps(length, steps) for length in (config.warmup, config.decay))
    return schedule(step, steps, warmup=warmup, decay=decay, config=config)


def schedule(at: float, end: float, *, warmup: float, decay: float, config: OptimConfig) -> float:
    """Learning rate of the update with which a run is at `at` of `end`: all four in steps, or all in tokens."""
    if at <= warmup:
        return config.lr * at / warmup
    return config.lr * (config.floor + (1 - config.floor) * _shape(at, end, warmup, decay, config))


def _shape(at: float, end: float, warmup: float, decay: float, config: OptimConfig) -> float:
    """From 1 at the end of warm-up down to 0 at the last update."""
    remaining = (end - at) / max(end - warmup, 1)
    match config.schedule:
        case "constant":
            return 1.0
        case "linear":
            return remaining
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * (1 - remaining)))
        case "wsd":
            return min(1.0, (end - at) / max(decay, 1))
    raise AssertionError(config.schedule)
