"""`lab/pretrain.py` with one more monitor, which needs the number of elements of a place, however it is shared."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from torch import Tensor

from lab import pretrain
from lab.monitors.moments import Monitor, monitor
from lab.monitors.quantity import RMS, Quantity


def register() -> None:
    quantities = [
        Quantity(name, of=of, reduction=RMS, unit="1", title=name, shows=name, definition=name, source="this test")
        for name, of in (("weight_rms", "weights"), ("gradient_rms", "gradients"))
    ]

    @monitor("rms", *quantities)
    class RootMeanSquares(Monitor):
        def before_update(self, gradient_norms: Tensor) -> None:
            groups = self.groups
            self.weights = groups.root_mean_squares(groups.weight_norms(groups.weights()))
            self.gradients = groups.root_mean_squares(gradient_norms)

        def after_update(self) -> dict[str, Tensor]:
            return {"weight_rms": self.weights, "gradient_rms": self.gradients}


if __name__ == "__main__":
    register()
    sys.exit(pretrain.main())
