"""What learns: the model and its optimizer, as the processes share them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import PreTrainedModel

from lab.config.sections import RunConfig
from lab.errors import ConfigError
from lab.model.loss import LossSum, token_loss_sum
from lab.parallel.places import Groups
from lab.parallel.sharding import Sharding, sharding_of
from lab.training.optim import build_optimizer


@dataclass(frozen=True)
class Learner:
    """A model that trains, made by `share_out`."""

    bare: PreTrainedModel
    """The causal LM itself."""
    model: Any
    """What computes: the causal LM as the accelerator has wrapped it."""
    optimizer: Any
    sharding: Sharding
    groups: Groups
    loss_sum: LossSum

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Sum of -log p(target) in nats over a micro-batch's targets, and the logits (B, T, V)."""
        inputs = {name: tensor for name, tensor in batch.items() if name != "targets"}
        logits = self.model(**inputs, use_cache=False).logits
        return self.loss_sum(logits, batch["targets"]), logits

    def set_learning_rate(self, lr: float) -> None:
        """For the next update."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr


def share_out(run: RunConfig, model: PreTrainedModel, accelerator: Accelerator) -> Learner:
    """Hand a model and a new optimizer to the processes.

    Raises:
        ConfigError: `--checkpoint.diagnose cheap` where no process holds the whole model.
    """
    if run.train.activation_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    loss_sum: LossSum = token_loss_sum
    if run.train.compile:
        model.compile()
        loss_sum = torch.compile(token_loss_sum)
    model.train()
    optimizer = build_optimizer(model, run.optim, accelerator.device)
    wrapped, prepared = accelerator.prepare(model, optimizer)
    sharding = sharding_of(accelerator, wrapped, prepared)
    if run.checkpoint.diagnose == "cheap" and sharding.shares_weights:
        raise ConfigError(
            f"--checkpoint.diagnose cheap: no process holds the whole model under {sharding.name}; use beside"
        )
    return Learner(model, wrapped, prepared, sharding, Groups(model, sharding), loss_sum)
