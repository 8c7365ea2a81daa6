from __future__ import annotations

import math

from normalization.plan import LayerPlan
from normalization.schemes import scheme


@scheme(
    "lns",
    source="LayerNorm Scaling, Sun et al. 2025, arXiv:2502.05795",
    discouraged={
        "scaled": "LayerNorm Scaling already shrinks deep layers; scaled initialisation on top of it is "
        "known to cancel its advantage (arXiv:2502.05795)"
    },
)
def lns(layer: int, depth: int) -> LayerPlan:
    """x + F(N(x)/sqrt(l)); the final norm is not scaled."""
    return LayerPlan(norm_in=True, input_scale=1 / math.sqrt(layer))
