from __future__ import annotations

from torch import Tensor

from lab.monitors.moments import Monitor, monitor


@monitor
class GradientNorm(Monitor):
    """`grad_norm/PLACE`: L2 norm of the gradient of the step's mean loss per token, before clipping."""

    def before_update(self, gradient_norms: Tensor) -> None:  # noqa: D102
        self._norms = gradient_norms

    def after_update(self) -> dict[str, float]:  # noqa: D102
        return self.groups.named("grad_norm", self._norms)
