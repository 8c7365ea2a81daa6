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
    stop: bool
    """Whether any rank was asked to stop."""
    figures: dict[str, float]
    """What the monitors measured, if this step was to be measured."""
    aux_loss: float | None = None
    """How unevenly tokens are sent to experts, where there are any (`lab.model.loss.Objective`)."""
