"""Where the first value that is not finite appeared, once a loss or gradient is not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

import normalization
from lab.errors import RunError
from lab.parallel.collectives import gather
from lab.parallel.places import Groups, layer_names


class NotFiniteError(RunError):
    """A loss or gradient is not finite."""

    def __init__(self, what: str, where: str | None) -> None:
        super().__init__(what if where is None else f"{what}; first not finite: {where}")
        self.what, self.where = what, where


def found(
    model: nn.Module, batches: Sequence[dict[str, Tensor]], loss: float, gradient_norms: Tensor, groups: Groups
) -> NotFiniteError:
    """The error that says what is not finite and where that began, on the first rank that knows; all ranks call it.

    Args:
        model: the bare causal LM.
        batches: this rank's micro-batches of the step.
        loss: of the step.
        gradient_norms: L2 norm of the gradient by place.
        groups: the places.
    """
    places = [place for place in gather(locate(model, batches, gradient_norms, groups)) if place is not None]
    gradient_norm = float(gradient_norms.square().sum().sqrt())
    what = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient norm is {gradient_norm}"
    return NotFiniteError(what, places[0] if places else None)


def locate(
    model: nn.Module, batches: Sequence[dict[str, Tensor]], gradient_norms: Tensor, groups: Groups
) -> str | None:
    """Name the place: weights, else the first output in a forward pass, else the deepest gradient.

    Args:
        model: the bare causal LM.
        batches: this rank's micro-batches of the step.
        gradient_norms: L2 norm of the gradient by place.

    Returns:
        For example "the output of layer_03", or None where all is finite on this rank.
    """
    weights = groups.weight_norms(groups.weights())
    for name, norm in zip(groups.names, weights.tolist(), strict=True):
        if not math.isfinite(norm):
            return f"the weights of {name}"
    if (place := _first_output(model, batches)) is not None:
        return f"the output of {place}"
    # The backward pass runs from the head down, so the deepest place is where it began.
    for name, norm in reversed(list(zip(groups.names, gradient_norms.tolist(), strict=True))):
        if not math.isfinite(norm):
            return f"the gradient of {name}"
    return None


def _first_output(model: nn.Module, batches: Sequence[dict[str, Tensor]]) -> str | None:
    layers = normalization.decoder_layers(model)
    places: list[tuple[str, nn.Module]] = [("embedding", model.get_input_embeddings())]  # type: ignore[operator]
    places += zip(layer_names(len(layers)), layers, strict=True)
    places += [("head", model.get_output_embeddings())]  # type: ignore[operator]
    found: list[str] = []

    def record(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            tensor = output[0] if isinstance(output, tuple) else output
            if not found and not bool(torch.isfinite(tensor).all()):
                found.append(name)

        return hook

    handles = [module.register_forward_hook(record(name)) for name, module in places]
    try:
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            for batch in batches:
                model(**{key: value for key, value in batch.items() if key != "targets"}, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None
