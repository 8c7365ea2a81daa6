"""How many directions the residual stream uses."""

from __future__ import annotations

import torch
from torch import Tensor

from lab.diagnostics.base import Reading
from lab.diagnostics.engine.streams import Streams
from lab.diagnostics.registry import diagnostic
from lab.diagnostics.values import Figure, stream_axis

WIDEST = 2048
"""Wider streams are projected onto this many random orthonormal directions, so that memory stays bounded."""


def effective_rank(gram: Tensor) -> Tensor:
    """exp(entropy of sigma_i / sum sigma) of matrices X, from X^T X (..., D, D): Roy and Vetterli 2007, eq. 5.

    1 if all rows point the same way, D if all directions are used alike.
    """
    singular = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()
    share = singular / singular.sum(-1, keepdim=True)
    return torch.special.entr(share).sum(-1).exp()


@diagnostic("rank", source="effective rank: Roy and Vetterli, EUSIPCO 2007; anisotropy: arXiv:1909.00512", cheap=True)
class Rank(Reading):
    """Effective rank of h_l (tokens x features), and anisotropy: the mean cosine between different tokens."""

    def prepare(self) -> None:
        streams, width = self.session.depth + 1, self.session.width
        self._used = min(width, WIDEST)
        self._projection = None
        if width > WIDEST:
            generator = torch.Generator().manual_seed(self.session.options.seed)
            directions = torch.randn(width, WIDEST, dtype=torch.float64, generator=generator)
            self._projection = torch.linalg.qr(directions).Q.to(self.session.device)
        # In float64: squaring a matrix in float32 would drown all singular values below 3e-4 of the largest.
        self._gram = self.total(streams, self._used, self._used)
        self._directions = self.total(streams, width)
        self._tokens = self.total(1)

    def update(self, streams: Streams) -> None:
        real = streams.batch.real
        self._tokens += real.sum()
        for place, stream in enumerate(streams.hidden):
            tokens = stream[real].double()
            self._directions[place] += torch.nn.functional.normalize(tokens, dim=-1).sum(0)
            if self._projection is not None:
                tokens = tokens @ self._projection
            self._gram[place].addmm_(tokens.T, tokens)

    def figures(self) -> dict[str, Figure]:
        axis = stream_axis(self.session.depth)
        tokens = float(self._tokens)
        together = self._directions.square().sum(-1)
        limit = "" if self._projection is None else f", projected onto {WIDEST} random directions"
        ranks = torch.stack([effective_rank(gram) for gram in self._gram])
        return {
            "effective_rank": Figure(
                ranks.cpu().numpy(),
                axis,
                "directions",
                f"exp(entropy of the singular values) of h_l (all tokens x features{limit}); not centred",
            ),
            "anisotropy": Figure(
                ((together - tokens) / max(tokens * (tokens - 1), 1)).cpu().numpy(),
                axis,
                "1",
                "cosine between h_l of two different tokens; mean over all pairs of tokens",
            ),
        }
