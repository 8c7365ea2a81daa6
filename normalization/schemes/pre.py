from __future__ import annotations

from normalization.plan import LayerPlan
from normalization.schemes import scheme


@scheme("pre", source="Pre-LN, Xiong et al. 2020, arXiv:2002.04745")
def pre(layer: int, depth: int) -> LayerPlan:
    """x + F(N(x)): what Llama, Qwen and GPT-2 ship with."""
    return LayerPlan(norm_in=True)
