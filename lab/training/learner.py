"""What learns: the model and its optimizer, as the processes share them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from accelerate import Accelerator
from transformers import PreTrainedModel

from lab.config.sections import RunConfig
from lab.errors import ConfigError
from lab.model.attention import keep_documents_apart
from lab.model.loss import Objective
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
    objective: Objective

    def set_learning_rate(self, lr: float) -> None:
        """For the next update."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr


def share_out(run: RunConfig, model: PreTrainedModel, accelerator: Accelerator) -> Learner:
    """Hand a model and a new optimizer to the processes.

    Raises:
        ConfigError: `--checkpoint.diagnose cheap` where no process holds the whole model; experts without a loss that
            keeps their load even.
    """
    if run.train.activation_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    objective = Objective(model, compiled=run.train.compile)
    if run.data.isolate_documents:
        keep_documents_apart(model)
    if run.train.compile:
        model.compile()
    model.train()
    optimizer = build_optimizer(model, run.optim, accelerator.device)
    wrapped, prepared = accelerator.prepare(model, optimizer)
    sharding = sharding_of(accelerator, wrapped, prepared)
    if run.checkpoint.diagnose == "cheap" and sharding.shares_weights:
        raise ConfigError(
            f"--checkpoint.diagnose cheap: no process holds the whole model under {sharding.name}; use beside"
        )
    return Learner(model, wrapped, prepared, sharding, Groups(model, sharding), objective)
