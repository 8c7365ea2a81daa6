"""Schemes that a stock model can compute: fold LayerNorm Scaling into the norms' weights, and unfold it."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from normalization.api import apply, family_of, plans, spec
from normalization.auto import stock_config
from normalization.families import Family
from normalization.plan import LayerPlan
from normalization.schemes import get as get_scheme


def fold(model: PreTrainedModel) -> PreTrainedModel:
    """A stock model that computes what `model` computes: each norm's output is scaled by its weight instead.

    For LayerNorm Scaling, N(x)/sqrt(l) is the norm with weight (and bias) divided by sqrt(l) (arXiv:2502.05795, its
    equation for inference). Exact up to rounding in the weights' dtype.

    Returns:
        A new model of the family's stock class; `model` is unchanged.

    Raises:
        ValueError: a scheme that no stock model of the family computes; says why and what to do instead.
    """
    family = family_of(model)
    layer_plans = plans(model)
    _refuse_unfoldable(model, family, layer_plans)
    folded = family.stock(stock_config(model.config, family))
    for own, of_model in (
        (dict(folded.named_parameters()), dict(model.named_parameters())),
        (dict(folded.named_buffers()), dict(model.named_buffers())),
    ):
        assert own.keys() == of_model.keys()
        for name, tensor in own.items():
            # Each in its own type: the rotary table stays in float32 beside weights in bfloat16.
            tensor.data = of_model[name].detach().clone()
    for layer, plan in zip(family.decoder_layers(folded), layer_plans, strict=True):
        scale_norms(layer, family, plan.input_scale)
    folded.generation_config = copy.deepcopy(model.generation_config)
    return folded.eval()


def from_pre_ln(model: PreTrainedModel) -> PreTrainedModel:
    """Turn a pretrained Pre-LN model into LayerNorm Scaling without changing what it computes, in place.

    The norm weights (and biases) of layer l are multiplied by sqrt(l), which the scheme divides out again.

    Raises:
        ValueError: a model that is not stock Pre-LN, or whose norms have no weights.
    """
    family = family_of(model)
    if family.stock_scheme != "pre":
        raise ValueError(
            f"a stock {family.model_type!r} model is not Pre-LN (its norms stand as in {family.stock_scheme!r}), so it "
            "cannot become LayerNorm Scaling without changing what it computes"
        )
    if not _norm_has_weight(family, model):
        raise ValueError(f"the norms of {family.model_type!r} have no weights that could take up the factor sqrt(l)")
    apply(model, "lns")
    for number, layer in enumerate(family.decoder_layers(model), start=1):
        scale_norms(layer, family, math.sqrt(number))
    return model


@torch.no_grad()
def scale_norms(layer: nn.Module, family: Family, factor: float) -> None:
    """Multiply the output of a layer's two own norms by `factor`, through their weights, in place."""
    if factor == 1.0:
        return
    for path in (family.attention_norm, family.mlp_norm):
        norm: Any = layer.get_submodule(path)
        # A norm scales by its weight, counted from `unit_weight`: 1 + w for Gemma's.
        offset = 1.0 - family.unit_weight
        norm.weight.copy_((norm.weight.double() + offset) * factor - offset)
        bias: Tensor | None = getattr(norm, "bias", None)
        if bias is not None:
            bias.mul_(factor)


def _refuse_unfoldable(model: nn.Module, family: Family, layer_plans: list[LayerPlan]) -> None:
    normalization = spec(model)
    stock = get_scheme(family.stock_scheme).plans(len(layer_plans), {})
    # A scale right behind a norm is a matter of the norm's weight; anything else moves or adds a norm.
    weighted = _norm_has_weight(family, model)
    for number, (plan, stock_plan) in enumerate(zip(layer_plans, stock, strict=True), start=1):
        scale_folds = plan.input_scale == 1.0 or (plan.norm_in and weighted)
        if not scale_folds or replace(plan, input_scale=1.0) != stock_plan or not normalization.final_norm:
            raise ValueError(
                f"{normalization.scheme!r} cannot be folded into a stock {family.model_type!r} model: layer {number} "
                f"computes {plan}, a stock layer {stock_plan}{'' if weighted else ' with norms that have no weights'}, "
                "and no choice of weights makes them equal. `depthlab export --to remote-code` writes a folder that "
                "loads with trust_remote_code=True where depthlab is not installed"
            )


def _norm_has_weight(family: Family, model: nn.Module) -> bool:
    layer = family.decoder_layers(model)[0]
    return any(True for _ in layer.get_submodule(family.attention_norm).parameters())
