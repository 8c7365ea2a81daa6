"""What a scheme decides for one layer: where its norms stand and how the streams around them are scaled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Slot = Literal["in", "out", "post"]


@dataclass(frozen=True)
class LayerPlan:
    """How both sublayers F (attention, then MLP) of one decoder layer update the residual stream x.

        x <- N_post(residual_scale * x + N_out(F(input_scale * N_in(x))))

    A norm that the plan leaves out is the identity. The scales are Python floats, never buffers: a buffer
    made in `__init__` is garbage after a model is materialised from the meta device.
    """

    norm_in: bool = False
    norm_out: bool = False
    norm_post: bool = False
    input_scale: float = 1.0
    residual_scale: float = 1.0

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The norms in use. The layer's own norm fills one; each further one needs a new norm."""
        used: dict[Slot, bool] = {"in": self.norm_in, "post": self.norm_post, "out": self.norm_out}
        return tuple(slot for slot in used if used[slot])

    def __str__(self) -> str:
        inner = "N(x)" if self.norm_in else "x"
        if self.input_scale != 1.0:
            inner = f"{self.input_scale:.4g}·{inner}"
        branch = f"{'N_out' if self.norm_in else 'N'}(F({inner}))" if self.norm_out else f"F({inner})"
        stream = "x" if self.residual_scale == 1.0 else f"{self.residual_scale:.4g}·x"
        return f"N({stream} + {branch})" if self.norm_post else f"{stream} + {branch}"
