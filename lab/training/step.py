from __future__ import annotations

from dataclasses import dataclass


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
