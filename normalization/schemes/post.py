from __future__ import annotations

from normalization.plan import LayerPlan
from normalization.schemes import scheme


@scheme("post", source="Post-LN, Vaswani et al. 2017, arXiv:1706.03762")
def post(layer: int, depth: int) -> LayerPlan:
    """N(x + F(x)): the original Transformer."""
    return LayerPlan(norm_post=True)
