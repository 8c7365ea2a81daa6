from __future__ import annotations

from normalization.plan import LayerPlan
from normalization.schemes import scheme


@scheme("out", source="output norm, OLMo 2, arXiv:2501.00656")
def out(layer: int, depth: int) -> LayerPlan:
    """x + N(F(x)): what OLMo 2 and OLMo 3 ship with."""
    return LayerPlan(norm_out=True)
