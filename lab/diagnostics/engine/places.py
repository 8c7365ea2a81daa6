"""A causal LM's parameters by place: embedding, layer and sublayer, final norm, head."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from lab.diagnostics.engine.session import Session
from normalization.weights import Role


class Place(NamedTuple):
    """Where a parameter stands: `embedding`, `final_norm` or `head` (layer 0), or a sublayer of layer 1..L."""

    layer: int
    part: str


def places(session: Session) -> dict[Place, list[nn.Parameter]]:
    """Every parameter once, by its place: `attention` and `mlp` hold their own norms too. A head that is tied to the
    embedding belongs to `embedding`."""
    family = session.family
    found: dict[Place, list[nn.Parameter]] = {}
    placed: set[int] = set()

    def put(place: Place, parameter: nn.Parameter) -> None:
        if id(parameter) not in placed:
            placed.add(id(parameter))
            found.setdefault(place, []).append(parameter)

    for number, layer in enumerate(session.layers, start=1):
        for name, parameter in layer.named_parameters():
            is_attention = name.startswith((f"{family.attention}.", family.attention_norm))
            put(Place(number, "attention" if is_attention else "mlp"), parameter)
    for module in session.model.modules():
        if isinstance(module, nn.Embedding):
            for parameter in module.parameters():
                put(Place(0, "embedding"), parameter)
    for parameter in session.model.get_submodule(family.final_norm).parameters():
        put(Place(0, "final_norm"), parameter)
    for parameter in session.model.parameters():
        put(Place(0, "head"), parameter)
    return found


class Matrix(NamedTuple):
    """One linear map of a layer, as a view into its weights."""

    name: str
    """Of the weight in the layer."""
    role: Role
    view: Tensor
    """(..., out, in); experts, or heads, come first."""
    module: nn.Module
    """Reads the map's input, where it is a linear layer."""


def matrices(session: Session, layer: int) -> Iterator[Matrix]:
    """The linear maps of layer 1..L, routers of experts left out; what is fused is taken apart."""
    decoder_layer = session.layers[layer - 1]
    for name, layout in session.family.weights.items():
        holder, _, attribute = name.rpartition(".")
        try:
            module = decoder_layer.get_submodule(holder)
        except AttributeError:
            continue  # a layer without this part: dense among layers of experts
        weight = getattr(module, attribute, None)
        if weight is None:
            continue
        for part in layout(weight.detach(), session.model.config):
            if part.role != "router":
                view = part.view.mT if isinstance(module, Conv1D) else part.view
                yield Matrix(name, part.role, view, module)
