from __future__ import annotations

import torch
from torch import Tensor

from lab.monitors.moments import Monitor, monitor
from lab.parallel.places import Groups


@monitor
class UpdateRatio(Monitor):
    """`weight_norm/PLACE`: L2 norm of the weights before the update; `update_ratio/PLACE`: that of the update,
    weight decay included, divided by it.

    Costs a second copy of the weights, which is kept from one measured step to the next.
    """

    def __init__(self, groups: Groups) -> None:
        super().__init__(groups)
        self._before: list[Tensor] = []

    def before_update(self, gradient_norms: Tensor) -> None:  # noqa: D102
        weights = self.groups.weights()
        self._weight_norms = self.groups.weight_norms(weights)
        if not self._before:
            self._before = [torch.empty_like(weight) for weight in weights]
        torch._foreach_copy_(self._before, weights)

    def after_update(self) -> dict[str, float]:  # noqa: D102
        torch._foreach_sub_(self._before, self.groups.weights())
        updates = self.groups.weight_norms(self._before)
        tiny = torch.finfo(updates.dtype).tiny
        return self.groups.named("weight_norm", self._weight_norms) | self.groups.named(
            "update_ratio", updates / self._weight_norms.clamp_min(tiny)
        )
