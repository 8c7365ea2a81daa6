from __future__ import annotations

from torch import Tensor

from lab.monitors.moments import Monitor, monitor
from lab.monitors.quantity import NORM, Quantity

_GRAD_NORM = Quantity(
    "grad_norm",
    of="gradients",
    reduction=NORM,
    unit="nats/token",
    title="Gradient norm by layer",
    shows="Who learns. Look for layers that stay dark: deep ones under Pre-LN, early ones under Post-LN.",
    definition="L2 norm, over a layer's parameters, of the gradient of the step's mean loss per token, before "
    "clipping.",
    source="arXiv:2412.13795",
    panel="layer_gradients",
)


@monitor("gradient_norm", _GRAD_NORM)
class GradientNorm(Monitor):
    """The norms that clipping needs anyway, by place."""

    def before_update(self, gradient_norms: Tensor) -> None:  # noqa: D102
        self._norms = gradient_norms

    def after_update(self) -> dict[str, Tensor]:  # noqa: D102
        return {"grad_norm": self._norms}
