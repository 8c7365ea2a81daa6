from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lab.monitors.moments import Monitor, monitor
from lab.monitors.quantity import NORM, Quantity
from lab.parallel.places import Groups

_WEIGHT_NORM = Quantity(
    "weight_norm",
    of="weights",
    reduction=NORM,
    unit="1",
    title="Weight norm by layer",
    shows="How large the weights become. Look for layers that grow without end, or shrink under weight decay.",
    definition="L2 norm over a layer's parameters, before the update.",
    source="a monitor of ours",
)
_UPDATE_RATIO = Quantity(
    "update_ratio",
    of="updates",
    reduction=NORM,
    relative_to="weights",
    unit="1",
    title="Update ratio by layer",
    shows="How much a step changes each layer. Look for layers that move far less, or far more, than the others.",
    definition="L2 norm of the update, weight decay included, divided by that of the weights before it.",
    source="a monitor of ours",
)


@monitor("update_ratio", _WEIGHT_NORM, _UPDATE_RATIO)
class UpdateRatio(Monitor):
    """Costs a second copy of the weights, which is kept from one measured step to the next."""

    def __init__(self, groups: Groups, options: Any) -> None:
        super().__init__(groups, options)
        self._before: list[Tensor] = []

    def before_update(self, gradient_norms: Tensor) -> None:  # noqa: D102
        weights = self.groups.weights()
        self._weight_norms = self.groups.weight_norms(weights)
        if not self._before:
            self._before = [torch.empty_like(weight) for weight in weights]
        torch._foreach_copy_(self._before, weights)

    def after_update(self) -> dict[str, Tensor]:  # noqa: D102
        torch._foreach_sub_(self._before, self.groups.weights())
        updates = self.groups.weight_norms(self._before)
        tiny = torch.finfo(updates.dtype).tiny
        return {"weight_norm": self._weight_norms, "update_ratio": updates / self._weight_norms.clamp_min(tiny)}
