from __future__ import annotations

from normalization.plan import LayerPlan
from normalization.schemes import scheme


@scheme("peri", source="Peri-LN, Kim et al. 2025, arXiv:2502.02732", aliases=("sandwich",))
def peri(layer: int, depth: int) -> LayerPlan:
    """x + N_out(F(N_in(x))), two norms around every sublayer; also called sandwich."""
    return LayerPlan(norm_in=True, norm_out=True)
