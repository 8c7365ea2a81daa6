from __future__ import annotations

import math
from typing import Annotated

from normalization.plan import LayerPlan
from normalization.schemes import scheme
from normalization.schemes.post import post
from normalization.schemes.pre import pre


@scheme("mix", source="Mix-LN, Li et al. 2024, arXiv:2412.13795", either=("alpha", "post_layers"))
def mix(
    layer: int,
    depth: int,
    *,
    alpha: Annotated[float | None, "share of layers that are Post-LN, 0 to 1, rounded down"] = 0.25,
    post_layers: Annotated[int | None, "exact number of Post-LN layers, in place of alpha"] = None,
) -> LayerPlan:
    """`post` in the first floor(alpha·L) layers, `pre` in the rest."""
    if alpha is not None and post_layers is not None:
        raise ValueError(f"mix takes alpha or post_layers, not both ({alpha=}, {post_layers=})")
    if alpha is not None:
        if not 0 <= alpha <= 1:
            raise ValueError(f"mix needs 0 <= alpha <= 1, not {alpha=}")
        # Decimal fractions are not exact in binary: 0.29 * 100 is 28.999..., and the user means 29.
        post_layers = math.floor(alpha * depth + 1e-9)
    if post_layers is None or post_layers not in range(depth + 1):
        raise ValueError(f"mix needs 0 <= post_layers <= {depth} (the model's layers), not {post_layers=}")
    return post(layer, depth) if layer <= post_layers else pre(layer, depth)
