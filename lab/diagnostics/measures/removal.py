"""What the model loses without a layer, or without a run of layers."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lab.diagnostics.base import Reading
from lab.diagnostics.engine.decoding import Decoded, decode_all
from lab.diagnostics.engine.streams import Streams
from lab.diagnostics.registry import diagnostic
from lab.diagnostics.values import Figure, layer_axis


@diagnostic("removal", source="layer removal: arXiv:2403.03853, arXiv:2403.17887, arXiv:2502.05795")
class Removal(Reading):
    """Skip layers l .. l + n - 1: layer l + n reads h_(l-1), which the pass has left behind, so that only the layers
    after the gap run."""

    replays = True

    def prepare(self) -> None:
        depth = self.session.depth
        self._longest = min(self.session.options.removal_max, depth)
        self._gaps = [
            (first, length) for length in range(1, self._longest + 1) for first in range(1, depth - length + 2)
        ]
        self._without = {kind: self.block_sums(len(self._gaps)) for kind in ("loss", "top1", "kl", "increase")}
        self._full = {kind: self.block_sums() for kind in ("loss", "top1")}

    @torch.no_grad()
    def update(self, streams: Streams) -> None:
        batch, full = streams.batch, streams.hidden[-1]
        for sums in (*self._without.values(), *self._full.values()):
            sums.count(batch.rows, batch.predicted.sum(1))
        # As many at a time as the model has layers: the pass has left as many streams behind.
        for start in range(0, len(self._gaps), self.session.depth):
            group = self._gaps[start : start + self.session.depth]
            ends = [streams.run(streams.hidden[first - 1], after=first + length - 1) for first, length in group]
            whole, *decoded = decode_all(self.session, ends, full, batch.targets, batch.predicted)
            if start == 0:
                self._full["loss"].add(batch.rows, (), whole.loss)
                self._full["top1"].add(batch.rows, (), whole.hits)
            for place, without in enumerate(decoded, start=start):
                self._add(batch.rows, place, without, whole.loss)

    def _add(self, rows: slice, place: int, without: Decoded, whole_loss: Tensor) -> None:
        self._without["loss"].add(rows, place, without.loss)
        self._without["top1"].add(rows, place, without.hits)
        self._without["kl"].add(rows, place, without.kl)
        self._without["increase"].add(rows, place, without.loss - whole_loss)

    def figures(self) -> dict[str, Figure]:
        over = "mean over predicted tokens"
        about = {
            "loss": ("nats/token", f"loss without the layer; {over}"),
            "increase": ("nats/token", f"loss without the layer minus that of the whole model; {over}"),
            "top1": ("1", f"share of predicted tokens that no other token is likelier than, without the layer; {over}"),
            "kl": ("nats/token", f"KL(p || p without the layer); {over}"),
        }
        full, full_error = self._full["loss"].mean(), self._full["loss"].error()
        found = {
            "full_loss": Figure(full, {}, "nats/token", f"loss of the whole model; {over}", full_error),
            "full_perplexity": Figure(
                np.exp(full), {}, "1", "exp(full_loss); error by the delta method", np.exp(full) * full_error
            ),
            "full_top1": Figure(self._full["top1"].mean(), {}, "1", over, self._full["top1"].error()),
        }
        depth = self.session.depth
        for kind, (unit, reduction) in about.items():
            sums = self._without[kind]
            found[kind] = Figure(sums.mean()[:depth], layer_axis(depth), unit, reduction, sums.error()[:depth])
        perplexity = np.exp(found["loss"].values)
        error = found["loss"].error
        assert error is not None
        found["perplexity"] = Figure(
            perplexity, layer_axis(depth), "1", "exp(loss); error by the delta method", perplexity * error
        )
        if self._longest > 1:
            axes = layer_axis(depth) | {"removed": range(1, self._longest + 1)}
            for kind in ("increase", "kl"):
                unit, reduction = about[kind]
                reduction = reduction.replace("the layer", "layers l .. l + n - 1")
                found[f"block_{kind}"] = Figure(
                    self._triangle(self._without[kind].mean()),
                    axes,
                    unit,
                    f"{reduction}; NaN where fewer than n layers are left",
                    self._triangle(self._without[kind].error()),
                )
        return found

    def _triangle(self, values: np.ndarray) -> np.ndarray:
        triangle = np.full((self.session.depth, self._longest), np.nan)
        for (first, length), value in zip(self._gaps, values, strict=True):
            triangle[first - 1, length - 1] = value
        return triangle
