from __future__ import annotations

from normalization.plan import LayerPlan
from normalization.schemes import scheme


@scheme("deepnorm", source="DeepNet, Wang et al. 2022, arXiv:2203.00555", initialization="deepnorm")
def deepnorm(layer: int, depth: int) -> LayerPlan:
    """N(alpha·x + F(x)) with alpha = (2L)^(1/4), the paper's value for a decoder of L layers."""
    return LayerPlan(norm_post=True, residual_scale=(2 * depth) ** 0.25)
