"""Which weights pruning sets to zero: by magnitude, or by magnitude times activation (Wanda)."""

from __future__ import annotations

import torch
from torch import Tensor

from lab.diagnostics.options import PATTERN


def pruned(scores: Tensor, level: str, *, by_row: bool) -> Tensor:
    """Mask (..., out, in) of the weights with the lowest scores.

    Args:
        scores: what a weight is worth, (..., out, in).
        level: a share such as 0.5, of the matrix or of each row; or N:M, N of each M neighbours in a row.
        by_row: compare within each row (Wanda) rather than over the matrix (magnitude).
    """
    if match := PATTERN.fullmatch(level):
        return _of_groups(scores, int(match[1]), int(match[2]))
    flat = scores if by_row else scores.reshape(*scores.shape[:-2], 1, -1)
    count = int(float(level) * flat.shape[-1])
    mask = torch.zeros_like(flat, dtype=torch.bool)
    if count:
        mask.scatter_(-1, flat.topk(count, dim=-1, largest=False, sorted=False).indices, True)
    return mask.reshape(scores.shape)


def _of_groups(scores: Tensor, lose: int, group: int) -> Tensor:
    """N of each M neighbours; a row's rest that fills no group is kept."""
    whole = scores.shape[-1] // group * group
    groups = scores[..., :whole].unflatten(-1, (-1, group))
    inside = torch.zeros_like(groups, dtype=torch.bool)
    inside.scatter_(-1, groups.topk(lose, dim=-1, largest=False).indices, True)
    mask = torch.zeros_like(scores, dtype=torch.bool)
    mask[..., :whole] = inside.flatten(-2)
    return mask
