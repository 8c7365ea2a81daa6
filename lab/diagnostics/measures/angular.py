"""Angles between the residual streams of all pairs of layers, from one pass."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lab.diagnostics.base import Reading
from lab.diagnostics.engine.block_sums import masked_sum
from lab.diagnostics.engine.streams import Streams
from lab.diagnostics.registry import diagnostic
from lab.diagnostics.values import Figure, layer_axis

TOKENS_AT_ONCE = 64


def cosines(vectors: Tensor) -> Tensor:
    """Cosines between all pairs of S vectors of each token: (..., S, D) -> (..., S, S), in float64.

    A cosine that rounding cannot tell from one is one: identical vectors are at an angle of exactly zero. A vector of
    zeros has cosine 0 to any other.
    """
    vectors = vectors.double()
    products = vectors @ vectors.mT
    squares = products.diagonal(dim1=-2, dim2=-1)
    norms = squares[..., :, None].sqrt() * squares[..., None, :].sqrt()
    cosine = torch.where(norms > 0, products / norms.clamp_min(torch.finfo(torch.float64).tiny), 0.0)
    # A sum of D products of numbers of at most float32 precision is off by less than this.
    resolution = 2 * vectors.shape[-1] * torch.finfo(torch.float64).eps
    cosine = torch.where(1 - cosine <= resolution, 1.0, cosine)
    return cosine.clamp(-1, 1)


@diagnostic("angular", source="arXiv:2403.17887 (angular distance), arXiv:2403.03853 (block influence)", cheap=True)
class Angular(Reading):
    """d(h_l, h_m) = arccos(cos(h_l, h_m)) / pi of the same token, for all l and m."""

    def prepare(self) -> None:
        streams = self.session.depth + 1
        self._everywhere = self.block_sums(streams, streams)
        self._last = self.block_sums(streams, streams)
        self._influence = self.block_sums(self.session.depth)

    def update(self, streams: Streams) -> None:
        batch = streams.batch
        for sums, mask in ((self._everywhere, batch.real), (self._last, batch.last), (self._influence, batch.real)):
            sums.count(batch.rows, mask.sum(1))
        blocks, length, width = streams.hidden[0].shape
        # One buffer for all: to allocate memory of this size costs more than the products.
        buffer = torch.empty(
            blocks, TOKENS_AT_ONCE, len(streams.hidden), width, dtype=torch.float64, device=batch.real.device
        )
        for start in range(0, length, TOKENS_AT_ONCE):
            tokens = slice(start, min(start + TOKENS_AT_ONCE, length))
            vectors = buffer[:, : tokens.stop - start]
            for place, stream in enumerate(streams.hidden):
                vectors[:, :, place] = stream[:, tokens]
            cosine = cosines(vectors)
            distance = cosine.arccos() / math.pi
            here = slice(None), slice(None)
            self._everywhere.add(batch.rows, here, masked_sum(distance, batch.real[:, tokens]))
            self._last.add(batch.rows, here, masked_sum(distance, batch.last[:, tokens]))
            influence = 1 - cosine.diagonal(offset=1, dim1=-2, dim2=-1)
            self._influence.add(batch.rows, slice(None), masked_sum(influence, batch.real[:, tokens]))

    def figures(self) -> dict[str, Figure]:
        depth = self.session.depth
        pairs = {"from": range(depth + 1), "to": range(depth + 1)}
        what = "angle between h_from and h_to of the same token over pi (0 same direction, 0.5 right angle)"
        steps, errors = self._everywhere.mean().diagonal(1), self._everywhere.error().diagonal(1)
        return {
            "distance": Figure(
                self._everywhere.mean(), pairs, "1/pi rad", f"{what}; mean over tokens", self._everywhere.error()
            ),
            "distance_last": Figure(
                self._last.mean(), pairs, "1/pi rad", f"{what}; mean over last tokens", self._last.error()
            ),
            "step": Figure(
                steps, layer_axis(depth), "1/pi rad", "angle between h_(l-1) and h_l over pi; mean over tokens", errors
            ),
            "influence": Figure(
                self._influence.mean(),
                layer_axis(depth),
                "1",
                "block influence 1 - cos(h_(l-1), h_l); mean over tokens",
                self._influence.error(),
            ),
        }
