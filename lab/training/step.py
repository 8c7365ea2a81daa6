"""One optimizer step: loss = sum over all ranks' targets of -log p(target), divided by their number; then one update.

What an engine does otherwise (DeepSpeed, FSDP2, a loss scale) stands in its file of `lab/parallel/sharding/`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from lab.monitors import Watch
from lab.parallel.collectives import all_sum
from lab.training import nonfinite
from lab.training.batches import StepBatches
from lab.training.learner import Learner
from lab.training.process import Process


@dataclass(frozen=True)
class StepResult:
    """One optimizer step, reduced over micro-batches and ranks."""

    loss: float
    """Nats per token: summed over all targets of the step, divided by their number."""
    gradient_norm: float
    """L2 norm of that loss's gradient, before clipping."""
    lr: float
    tokens: int
    epoch: float
    """Passes over the training data so far."""
    stop: bool
    """Whether any rank was asked to stop."""
    figures: dict[str, float]
    """What the monitors measured, if this step was to be measured."""
    aux_loss: float | None = None
    """How unevenly tokens are sent to experts, where there are any (`lab.model.loss.Objective`)."""


@dataclass(frozen=True)
class Stepper:
    """Makes optimizer steps.

    Args:
        learner: what learns.
        process: this one, among those that train together.
        clip: largest global gradient norm; None does not clip.
        asked_to_stop: whether this rank was.
    """

    learner: Learner
    process: Process
    clip: float | None
    asked_to_stop: Callable[[], bool]

    def step(self, taken: StepBatches, lr: float, epoch: float, watch: Watch) -> StepResult:
        """One update of all weights.

        Raises:
            NotFiniteError: the loss or the gradient; no update was made of it.
        """
        learner, sharding, targets = self.learner, self.learner.sharding, max(taken.targets, 1)
        here = self._accumulate(taken, targets, watch)
        # A stop that was asked for while the step was computed is known with its loss.
        *totals, stop = all_sum(self.process.accelerator, [*here, float(self.asked_to_stop())])
        loss, aux_loss, router_load = learner.objective.figures(totals, targets)

        self.process.heartbeat.at("update")
        sharding.unscale()
        watch.after_backward()
        norms = learner.groups.gradient_norms()
        norm = float(norms.square().sum().sqrt())
        if not (math.isfinite(loss) and (math.isfinite(norm) or sharding.searches_for_a_scale)):
            raise nonfinite.found(learner.bare, taken.batches, loss, norms, learner.groups)
        watch.before_update(norms)
        learner.set_learning_rate(lr)
        sharding.update(self.clip, norm)
        figures = watch.after_update() | (router_load if watch.measures else {})
        return StepResult(loss, norm, lr, taken.targets, epoch, stop > 0, figures, aux_loss)

    def _accumulate(self, taken: StepBatches, targets: int, watch: Watch) -> list[float]:
        """Gradients of the step's loss, micro-batch by micro-batch; returns this rank's sums for its figures."""
        learner, sums = self.learner, []
        # Ranks average their gradients, and the loss is a sum over all ranks.
        weight = self.process.accelerator.num_processes / targets
        with watch.forward():
            for number, batch in enumerate(taken.batches, start=1):
                self.process.heartbeat.at(f"forward and backward pass of micro-batch {number}")
                is_last = number == len(taken.batches)
                with learner.sharding.micro_batch(is_last=is_last):
                    watch.before_forward(batch)
                    inputs = {name: tensor for name, tensor in batch.items() if name != "targets"}
                    objective, of_figures, logits = learner.objective(learner.model, inputs, batch["targets"])
                    watch.after_forward(logits, batch)
                    del logits  # the largest tensor there is: the backward pass does not need it
                    learner.sharding.backward(objective * weight, is_last=is_last)
                sums.append(of_figures)
        return torch.stack(sums).sum(0).tolist()
