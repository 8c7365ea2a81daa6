"""Variance over the features, of the residual stream and of what attention and MLP put out."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lab.diagnostics.base import Reading
from lab.diagnostics.engine.block_sums import masked_sum
from lab.diagnostics.engine.streams import Streams
from lab.diagnostics.registry import diagnostic
from lab.diagnostics.values import Figure, layer_axis, stream_axis

MEDIAN_TOKENS = 1 << 16
"""Medians are over all tokens up to this many, and over an even sample of that size beyond: memory stays bounded."""
LARGEST = 8


@diagnostic("variance", source="variance growth of Pre-LN: LayerNorm Scaling, arXiv:2502.05795", cheap=True)
class Variance(Reading):
    """Var_d h_l(token), mean and median over tokens; the median does not see massive activations (arXiv:2402.17762),
    whose share of the stream is told apart."""

    sublayers = True

    def prepare(self) -> None:
        session = self.session
        depth, blocks, length = session.depth, len(session.probe), session.probe.length
        self._kinds = {"stream": depth + 1, "attention": depth, "mlp": depth}
        self._means = {kind: self.block_sums(places) for kind, places in self._kinds.items()}
        self._stride = -(-blocks * length // MEDIAN_TOKENS)
        sampled = -(-blocks * length // self._stride)
        self._samples = {kind: self.total(places, sampled, dtype=torch.float32) for kind, places in self._kinds.items()}
        self._squares = self.total(depth + 1)
        self._largest = self.total(blocks, depth + 1, LARGEST, dtype=torch.float32)

    def update(self, streams: Streams) -> None:
        real, rows = streams.batch.real, streams.batch.rows
        length = self.session.probe.length
        tokens = torch.arange(rows.start * length, rows.stop * length, device=real.device)
        sampled = tokens % self._stride == 0
        for kind, tensors in (("stream", streams.hidden), ("attention", streams.attention), ("mlp", streams.mlp)):
            self._means[kind].count(rows, real.sum(1))
            for place, tensor in enumerate(tensors):
                variances = tensor.float().var(dim=-1, correction=0)
                self._means[kind].add(rows, place, masked_sum(variances, real))
                self._samples[kind][place, tokens[sampled] // self._stride] = variances.flatten()[sampled]
        for place, tensor in enumerate(streams.hidden):
            self._squares[place] += self._of_squares(tensor, real, rows, place)

    def _of_squares(self, tensor: Tensor, real: Tensor, rows: slice, place: int) -> Tensor:
        squares = tensor.float().square() * real[..., None]
        self._largest[rows, place] = squares.flatten(1).topk(LARGEST).values
        return squares.sum(-1).double().sum()

    def figures(self) -> dict[str, Figure]:
        depth = self.session.depth
        real = torch.from_numpy(self.session.probe.real.ravel()[:: self._stride])
        found = {}
        for kind, mean in self._means.items():
            axis = stream_axis(depth) if kind == "stream" else layer_axis(depth)
            medians = np.median(self._samples[kind].cpu()[:, real].numpy().astype(np.float64), axis=1)
            where = "residual stream h_l" if kind == "stream" else f"output of the {kind}"
            found[f"{kind}_mean"] = Figure(
                mean.mean(),
                axis,
                "activation^2",
                f"variance over features of the {where}; mean over tokens",
                mean.error(),
            )
            found[f"{kind}_median"] = Figure(
                medians, axis, "activation^2", f"variance over features of the {where}; median over tokens"
            )
        top = self._largest.transpose(0, 1).flatten(1).topk(LARGEST).values.double().sum(1)
        found["largest_share"] = Figure(
            (top / self._squares).cpu().numpy(),
            stream_axis(depth),
            "1",
            f"share of the sum of squares of h_l over all tokens that its {LARGEST} largest activations hold",
        )
        return found
