"""The language-model loss: a sum over tokens, so that it can be divided by any global count."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from lab.data.packing import IGNORED

LossSum = Callable[[Tensor, Tensor], Tensor]
"""Logits (B, T, V) and targets (B, T) -> a sum in nats."""


def token_loss_sum(logits: Tensor, targets: Tensor) -> Tensor:
    """Sum of -log p(target) in nats over the targets (B, T) that are not IGNORED; logits (B, T, V), in float32."""
    return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum")


def token_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """-log p(target) in nats of each target (B, T), 0 where it is IGNORED; logits (B, T, V), in float32."""
    losses = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none")
    return losses.view_as(targets)


def count_targets(targets: Tensor) -> int:
    """How many targets are predicted."""
    return int((targets != IGNORED).sum())
