from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lab.monitors.moments import Monitor, monitor
from lab.monitors.quantity import LARGEST, TOKEN_VARIANCE, Quantity
from lab.parallel.collectives import largest_over_ranks, sum_over_ranks

_VARIANCE = Quantity(
    "activation_variance",
    of="layer outputs",
    reduction=TOKEN_VARIANCE,
    unit="activation²",
    title="Activation variance by layer",
    shows="How the residual stream grows while the model learns. Look for depth at which it explodes.",
    definition="Variance over the features of a layer's output, before the final norm; mean over the step's tokens.",
    source="arXiv:2502.05795",
    over="layers",
)
_LARGEST = Quantity(
    "activation_largest",
    of="layer outputs",
    reduction=LARGEST,
    unit="activation",
    title="Largest activation by layer",
    shows="Massive activations. Look for a layer from which one value is a thousand times the others.",
    definition="Largest magnitude in a layer's output over the step's tokens and all features.",
    source="arXiv:2402.17762",
    over="layers",
)


@dataclass(frozen=True)
class Options:
    """Of `Activations`."""

    stride: int = 1
    """Look at every so many tokens of a sequence, from its first."""

    def __post_init__(self) -> None:
        if self.stride < 1:
            raise ValueError("must be at least 1")


@monitor("activations", _VARIANCE, _LARGEST)
class Activations(Monitor):
    """The residual stream after each layer, in the forward passes of training itself."""

    Options = Options

    _seen: tuple[Tensor, ...] | None = None

    def on_layer(self, layer: int, stream: Tensor) -> None:  # noqa: D102
        if self._seen is None:
            depth = self.groups.depth
            self._seen = torch.zeros(3, depth, device=stream.device).unbind()
        looked_at = stream[:, :: self.options.stride].float()
        variances, tokens, largest = self._seen
        # As `var(dim=-1, correction=0).sum()`, which torch computes many times slower on a CPU.
        centred = looked_at - looked_at.mean(-1, keepdim=True)
        variances[layer - 1] += centred.square_().sum() / looked_at.shape[-1]
        tokens[layer - 1] += looked_at.shape[0] * looked_at.shape[1]
        largest[layer - 1] = torch.maximum(largest[layer - 1], looked_at.abs().max())

    def after_update(self) -> dict[str, Tensor]:  # noqa: D102
        assert self._seen is not None
        variances, tokens, largest = self._seen
        self._seen = None
        return {
            "activation_variance": sum_over_ranks(variances) / sum_over_ranks(tokens),
            "activation_largest": largest_over_ranks(largest),
        }
