from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lab.parallel.sharding.base import Sharding


class Replicated(Sharding):
    """One process, or DDP: every rank holds everything."""

    name = "replicated"
    gradients_are_parts = False
    weights_are_parts = False

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer
        self._fused = {id(p): group["fused"] for group in optimizer.param_groups for p in group["params"]}

    def gradient(self, parameter: nn.Parameter) -> Tensor:  # noqa: D102
        return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad

    def weight(self, parameter: nn.Parameter) -> Tensor:  # noqa: D102
        return parameter.detach()

    def whole(self, parameter: nn.Parameter, moment: str | None = None) -> Tensor:  # noqa: D102
        return parameter.detach() if moment is None else self._optimizer.state[parameter][moment]

    def updates(self, parameter: nn.Parameter) -> float:  # noqa: D102
        state = self._optimizer.state.get(parameter)
        return float(state["step"]) if state else 0.0

    def restore(self, parameter: Any, weight: Tensor | None, moments: dict[str, Tensor], updates: float) -> None:  # noqa: D102
        if updates:  # the weights themselves are float32 and loaded
            step = torch.tensor(updates, device=parameter.device if self._fused[id(parameter)] else "cpu")
            self._optimizer.state[parameter] = {
                "step": step,
                **{name: self._part(parameter, moment).clone() for name, moment in moments.items()},
            }

    def _part(self, parameter: Any, whole: Tensor) -> Tensor:
        return whole.to(parameter.device)
