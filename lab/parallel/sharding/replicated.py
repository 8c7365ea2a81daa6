from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from lab.parallel.sharding.base import Sharding


class Replicated(Sharding):
    """One process, or DDP: every rank holds everything."""

    name = "replicated"
    gradients_are_parts = False
    weights_are_parts = False

    def __init__(self, accelerator: Accelerator, model: nn.Module, optimizer: Any) -> None:
        self._accelerator, self._model, self._prepared = accelerator, model, optimizer
        self._optimizer: torch.optim.Optimizer = optimizer.optimizer
        self._fused = {id(p): group["fused"] for group in optimizer.param_groups for p in group["params"]}

    def micro_batch(self, *, is_last: bool) -> AbstractContextManager[Any]:  # noqa: D102
        return nullcontext() if is_last else self._accelerator.no_sync(self._model)

    def backward(self, loss: Tensor, *, is_last: bool) -> None:  # noqa: D102
        self._accelerator.backward(loss)

    def unscale(self) -> None:  # noqa: D102
        if self._accelerator.scaler is not None:
            self._accelerator.unscale_gradients(self._prepared)

    @property
    def searches_for_a_scale(self) -> bool:  # noqa: D102
        scaler = self._accelerator.scaler
        return scaler is not None and scaler.get_scale() > 1

    def update(self, clip: float | None, gradient_norm: float) -> None:  # noqa: D102
        if clip is not None and gradient_norm > clip:
            # As torch.nn.utils.clip_grad_norm_ does, with the norm that is known already.
            gradients = [p.grad for p in self._model.parameters() if p.grad is not None]
            torch._foreach_mul_(gradients, clip / (gradient_norm + 1e-6))
        self._prepared.step()
        self._prepared.zero_grad()

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
