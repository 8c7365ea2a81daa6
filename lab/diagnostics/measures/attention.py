"""Where each head looks."""

from __future__ import annotations

import torch
from torch import Tensor

from lab.diagnostics.base import NotApplicableError, Reading
from lab.diagnostics.engine.block_sums import masked_sum
from lab.diagnostics.engine.streams import Streams
from lab.diagnostics.registry import diagnostic
from lab.diagnostics.values import Figure, layer_axis


@diagnostic("attention", source="attention sinks: arXiv:2309.17453; entropy: arXiv:2303.06296", cheap=True)
class Attention(Reading):
    """Entropy of each head's attention, and the mass that it puts on the first token.

    Over queries that have a choice: the first token of a document can only look at itself, and is left out.
    """

    attention_weights = True

    def prepare(self) -> None:
        heads = int(self.session.model.config.num_attention_heads)
        self._entropy = self.block_sums(self.session.depth, heads)
        self._first = self.block_sums(self.session.depth, heads)

    def on_attention(self, layer: int, weights: Tensor | None, streams: Streams) -> None:
        if weights is None:
            raise NotApplicableError(
                f"attention: the implementation {self.session.model.config._attn_implementation!r} of attention in "
                f"layer {layer} returns no weights, and this model does not switch to 'eager', which does"
            )
        batch = streams.batch
        chooses = self._chooses(streams)
        weights = weights.float()
        entropy = torch.special.entr(weights).sum(-1).mT  # (B, T, H)
        heads = weights.shape[1]
        first = weights.gather(-1, batch.starts[:, None, :, None].expand(-1, heads, -1, 1))[..., 0].mT
        self._entropy.add(batch.rows, layer - 1, masked_sum(entropy, chooses))
        self._first.add(batch.rows, layer - 1, masked_sum(first, chooses))

    def update(self, streams: Streams) -> None:
        for sums in (self._entropy, self._first):
            sums.count(streams.batch.rows, self._chooses(streams).sum(1))

    def _chooses(self, streams: Streams) -> Tensor:
        batch = streams.batch
        return batch.real & (torch.arange(batch.real.shape[1], device=batch.real.device) > batch.starts)

    def figures(self) -> dict[str, Figure]:
        axes = layer_axis(self.session.depth) | {"head": range(1, self._entropy.sums.shape[-1] + 1)}
        queries = "mean over tokens that are not the first of their document"
        return {
            "entropy": Figure(
                self._entropy.mean(), axes, "nats", f"entropy of a head's attention; {queries}", self._entropy.error()
            ),
            "first_token": Figure(
                self._first.mean(), axes, "1", f"attention on the first token; {queries}", self._first.error()
            ),
        }
