"""A causal LM's parameters by place, and their norms, however the processes share them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

import normalization
from lab.parallel.collectives import sum_over_ranks
from lab.parallel.sharding import Sharding


def layer_names(depth: int) -> list[str]:
    """`layer_01` .. `layer_L`, with as many digits as sort right."""
    width = max(2, len(str(depth)))
    return [f"layer_{number:0{width}}" for number in range(1, depth + 1)]


class Groups:
    """A causal LM's parameters by place: `embedding`, `layer_01` .. `layer_L`, `final_norm`, `head`.

    A head that is tied to the embedding belongs to `embedding`.

    Args:
        model: as the accelerator has prepared it.
        sharding: how the processes share it.
    """

    def __init__(self, model: nn.Module, sharding: Sharding) -> None:
        self.sharding = sharding
        layers = normalization.decoder_layers(model)
        place = {
            id(parameter): name
            for name, layer in zip(layer_names(len(layers)), layers, strict=True)
            for parameter in layer.parameters()
        }
        embeddings = [module for module in model.modules() if isinstance(module, nn.Embedding)]
        place |= {id(parameter): "embedding" for module in embeddings for parameter in module.parameters()}
        head = model.get_output_embeddings()  # type: ignore[operator]
        place = {id(parameter): "head" for parameter in head.parameters()} | place

        self.parameters: list[nn.Parameter] = list(model.parameters())
        names = [place.get(id(parameter), "final_norm") for parameter in self.parameters]
        self.names: list[str] = sorted(set(names), key=_depth)
        self._index = torch.tensor([self.names.index(name) for name in names])
        self.depth = len(layers)
        sizes = torch.tensor([sharding.elements(parameter) for parameter in self.parameters], dtype=torch.float64)
        self.sizes: Tensor = torch.zeros(len(self.names), dtype=torch.float64).index_add_(0, self._index, sizes)
        """Number of elements by place, float64 `(places,)` on the CPU: of the whole, however it is shared."""

    def gradients(self) -> list[Tensor]:
        """This rank's part of each parameter's gradient; between backward pass and update."""
        return [self.sharding.gradient(parameter) for parameter in self.parameters]

    def weights(self) -> list[Tensor]:
        """This rank's part of each parameter."""
        return [self.sharding.weight(parameter) for parameter in self.parameters]

    def weight_norms(self, weights: Sequence[Tensor]) -> Tensor:
        """L2 norm by place, float32 `(len(names),)`, of tensors that are cut as the weights are."""
        return self._norms(weights, are_parts=self.sharding.weights_are_parts)

    def gradient_norms(self) -> Tensor:
        """L2 norm of the gradient by place, float32 `(len(names),)`; between backward pass and update."""
        return self._norms(self.gradients(), are_parts=self.sharding.gradients_are_parts)

    def root_mean_squares(self, norms: Tensor) -> Tensor:
        """From L2 norms by place: divided by the root of the number of elements."""
        return norms / self.sizes.sqrt().to(norms.device, norms.dtype)

    def _norms(self, tensors: Sequence[Tensor], *, are_parts: bool) -> Tensor:
        each = torch.stack(torch._foreach_norm(list(tensors), 2, dtype=torch.float32))
        squares = torch.zeros(len(self.names), device=each.device)
        squares.index_add_(0, self._index.to(each.device), each.square())
        return (sum_over_ranks(squares) if are_parts else squares).sqrt()


def _depth(name: str) -> tuple[int, str]:
    return {"embedding": 0, "final_norm": 2, "head": 3}.get(name, 1), name
