"""How far each layer is from doing nothing, to first order."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lab.diagnostics.base import Reading
from lab.diagnostics.engine.streams import Streams
from lab.diagnostics.registry import diagnostic
from lab.diagnostics.values import Figure, layer_axis


@diagnostic("jacobian", source="Hutchinson's estimator of a Frobenius norm; layer Jacobians: arXiv:2502.05795")
class Jacobian(Reading):
    """E|(J - I)v|^2 / |v|^2 with J = dh_l / dh_(l-1) over all tokens of a block and v a random direction.

    The expectation is |J - I|_F^2 / (T D), which is that of the transpose too, and so is the estimator's variance: one
    ordinary backward pass gives (J - I)^T u, in any layer and with any kernel of attention.
    """

    replays = True

    def prepare(self) -> None:
        self._distance = self.block_sums(self.session.depth)

    def update(self, streams: Streams) -> None:
        batch, samples = streams.batch, self.session.options.jacobian_samples
        directions = [self._direction(streams, sample) for sample in range(samples)]
        for direction in directions:
            self._distance.count(batch.rows, _squares(direction))
        for layer in range(1, self.session.depth + 1):
            with torch.enable_grad():
                below = streams.hidden[layer - 1].detach().requires_grad_()
                above = streams.layer(layer, below)
            for sample, direction in enumerate(directions, start=1):
                (back,) = torch.autograd.grad(above, below, direction, retain_graph=sample < samples)
                moved = back.float() - direction.float()
                self._distance.add(batch.rows, layer - 1, _squares(moved))

    def _direction(self, streams: Streams, sample: int) -> Tensor:
        """Gaussian on real tokens, zero on padding; of each block the same in any batch."""
        batch, stream = streams.batch, streams.hidden[0]
        blocks = []
        for block in range(batch.rows.start, batch.rows.stop):
            seed = np.random.SeedSequence([self.session.options.seed, sample, block]).generate_state(1, np.uint64)
            generator = torch.Generator().manual_seed(int(seed[0] >> 1))
            blocks.append(torch.randn(stream.shape[1:], generator=generator))
        return torch.stack(blocks).to(stream.device, stream.dtype) * batch.real[..., None]

    def figures(self) -> dict[str, Figure]:
        return {
            "distance": Figure(
                self._distance.mean(),
                layer_axis(self.session.depth),
                "1",
                "|J - I|_F^2 / (T D) of each layer, from random directions; mean over blocks and directions",
                self._distance.error(),
            )
        }


def _squares(vectors: Tensor) -> Tensor:
    return vectors.double().square().flatten(1).sum(1)
