"""The one forward of a patched decoder layer, for every scheme and family."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from typing import Any

from torch import Tensor, nn
from transformers import PretrainedConfig

from normalization.families import FAMILIES, Family
from normalization.plan import LayerPlan, Slot

Map = Callable[[Tensor], Tensor]


def residual(plan: LayerPlan, x: Tensor, sublayer: Map, norms: dict[Slot, Map]) -> Tensor:
    """One sublayer's update of the residual stream x (B, T, D), the equation of `LayerPlan`."""
    y = norms["in"](x) if plan.norm_in else x
    y = sublayer(scaled(y, plan.input_scale))
    y = norms["out"](y) if plan.norm_out else y
    x = scaled(x, plan.residual_scale) + y
    return norms["post"](x) if plan.norm_post else x


def scaled(x: Tensor, scale: float) -> Tensor:
    """scale * x, without a kernel where the scale is 1."""
    return x if scale == 1.0 else scale * x


class PatchedLayer(nn.Module):
    """What a decoder layer of any family becomes: its own modules, run in the order of its plan.

    A base beside the stock layer class (`patched_class`), whose gradient checkpointing, hooks and output
    recording work as before.
    """

    normalization_plan: LayerPlan
    normalization_family: Family
    normalization_norms: dict[str, dict[Slot, str]]
    """A sublayer's own norm -> slot -> name of the module that fills it."""

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Hidden states (B, T, D) to hidden states (B, T, D); the rest is handed to attention unchanged."""
        plan, family = self.normalization_plan, self.normalization_family
        kwargs.update(zip(family.positional, args, strict=False))

        def attention(y: Tensor) -> Tensor:
            return self._dropped(getattr(self, family.attention)(y, **kwargs)[0], family.attention_dropout)

        def mlp(y: Tensor) -> Tensor:
            return self._dropped(getattr(self, family.mlp)(y), family.mlp_dropout)

        x = hidden_states
        x = residual(plan, x, attention, self._norms(family.attention_norm))
        x = residual(plan, x, mlp, self._norms(family.mlp_norm))
        return x

    def _dropped(self, y: Tensor, dropout: str | None) -> Tensor:
        return y if dropout is None else getattr(self, dropout)(y)

    def _norms(self, own: str) -> dict[Slot, Map]:
        return {slot: getattr(self, name) for slot, name in self.normalization_norms[own].items()}

    def extra_repr(self) -> str:
        """The layer's update of the residual stream."""
        return str(self.normalization_plan)


@cache
def patched_class(stock: type[nn.Module]) -> type[nn.Module]:
    """The stock layer class with the patched forward.

    It keeps the stock class's name: FSDP's wrap policy and `device_map` find layers by it. Its body holds
    `forward` itself, because transformers adds gradient checkpointing to the classes that define one.
    """
    body = {"forward": PatchedLayer.forward, "__module__": __name__, "__doc__": PatchedLayer.__doc__}
    return type(stock.__name__, (stock, PatchedLayer), body)


def patch(layer: nn.Module, plan: LayerPlan, family: Family, config: PretrainedConfig) -> None:
    """Make a stock decoder layer follow `plan`, in place; new norms start at one, else like its own."""
    norms: dict[str, dict[Slot, str]] = {}
    for own in (family.attention_norm, family.mlp_norm):
        first, *further = sorted(plan.slots, key=lambda slot: slot != family.own_slot)
        # The layer's own norm keeps its name, so that stock weights load, and its place if the plan has it.
        norms[own] = {first: own} | {slot: f"{own}_{slot}" for slot in further}
        for slot in further:
            layer.add_module(norms[own][slot], family.new_norm(layer.get_submodule(own), config))
    layer.normalization_plan = plan  # type: ignore[assignment]
    layer.normalization_family = family  # type: ignore[assignment]
    layer.normalization_norms = norms  # type: ignore[assignment]
    stock: Any = type(layer)
    layer.__class__ = patched_class(stock)


def __getattr__(name: str) -> type[nn.Module]:
    # Pickle finds a patched layer's class by its name in this module, even before anything is patched.
    for family in FAMILIES.values():
        if name in (family.stock._no_split_modules or ()):
            return patched_class(getattr(importlib.import_module(family.stock.__module__), name))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
