"""Means over tokens, pooled over blocks as over one long block, with standard errors."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class BlockSums:
    """Sums of a quantity over the tokens of each block, in float64.

    The mean is sum / count over all blocks, so blocks of unequal length weigh as their tokens do. Tokens of a block
    depend on one another, so the standard error takes blocks as the independent units: that of a ratio of sums,
    sqrt(B/(B-1) sum_b (s_b - m c_b)^2) / sum_b c_b for B blocks that hold any token (Cochran 1977, section 2.11).
    """

    def __init__(self, blocks: int, shape: tuple[int, ...], device: torch.device) -> None:
        self.sums = torch.zeros((blocks, *shape), dtype=torch.float64, device=device)
        self.counts = torch.zeros(blocks, dtype=torch.float64, device=device)

    def add(self, rows: slice, where: int | slice | tuple[int | slice, ...], values: Tensor) -> None:
        """Add sums (B, ...) of the blocks `rows`, on any device, at an index of the quantity's shape."""
        index = where if isinstance(where, tuple) else (where,)
        self.sums[(rows, *index)] += values.to(self.sums.device).double()

    def count(self, rows: slice, counts: Tensor) -> None:
        """Add numbers of tokens (B,) of the blocks `rows`, on any device."""
        self.counts[rows] += counts.to(self.counts.device).double()

    def mean(self) -> np.ndarray:
        """The mean, of the quantity's shape; NaN if nothing was counted."""
        return (self.sums.sum(0) / self.counts.sum()).cpu().numpy()

    def error(self) -> np.ndarray:
        """Its standard error; NaN with fewer than two blocks."""
        seen = self.counts > 0
        blocks = int(seen.sum())
        sums, counts = self.sums[seen], self.counts[seen].view(-1, *[1] * (self.sums.ndim - 1))
        if blocks < 2:
            return np.full(self.sums.shape[1:], np.nan)
        residuals = sums - sums.sum(0) / counts.sum() * counts
        variance = residuals.square().sum(0) * blocks / (blocks - 1)
        return (variance.sqrt() / counts.sum()).cpu().numpy()


def masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    """Sum of values (B, T, ...) over the tokens of each block that the mask (B, T) names, in float64: (B, ...)."""
    wide = mask.view(*mask.shape, *[1] * (values.ndim - 2))
    return torch.where(wide, values, torch.zeros((), dtype=values.dtype, device=values.device)).double().sum(1)
