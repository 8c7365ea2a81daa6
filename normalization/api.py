"""What people call: place a scheme in a model, build or load a model with one, describe it."""

from __future__ import annotations

import copy
import sys
from typing import Any, TextIO

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from normalization.auto import PREFIX, model_class, place, with_normalization
from normalization.families import FAMILIES, Family, of_config
from normalization.layers import PatchedLayer
from normalization.plan import LayerPlan
from normalization.schemes import get as get_scheme
from normalization.specification import NormalizationSpec


def apply(model: PreTrainedModel, scheme: str, *, final_norm: bool = True, **options: Any) -> PreTrainedModel:
    """Place a scheme in a built stock causal LM, in place. Keeps existing weights; new norms start at one.

    The model then saves its scheme in `config.json` under a model type of ours, except with plain `pre`,
    which stays a stock checkpoint. Its config becomes a copy: other models that share the old one keep that.

    Args:
        model: a causal LM of one of `families.FAMILIES`, not yet wrapped by DDP, FSDP, DeepSpeed or PEFT.
        scheme: a name or alias in `schemes.names()`.
        final_norm: False drops the model's final norm, for schemes whose last layer ends in one.
        **options: the scheme's own, such as `post_layers=4` or `alpha=0.25` for `mix`.

    Returns:
        The same model.

    Raises:
        ValueError: unknown scheme, option or family; a model that already carries a scheme or is wrapped.
    """
    spec = NormalizationSpec.make(scheme, final_norm=final_norm, **options)
    family = _family_of_stock(model)
    config = with_normalization(model.config, family, spec)
    place(model, family, spec)
    shared = model.config
    for module in model.modules():
        if getattr(module, "config", None) is shared:
            module.config = config
    if spec.scheme != family.stock_scheme:
        model.__class__ = model_class(family)
    return model


def config(stock: PretrainedConfig, scheme: str, *, final_norm: bool = True, **options: Any) -> PretrainedConfig:
    """A config from which `AutoModelForCausalLM.from_config` builds the model with the scheme in place.

    Raises:
        ValueError: unknown scheme, option or family; a config that already carries a scheme.
    """
    spec = NormalizationSpec.make(scheme, final_norm=final_norm, **options)
    if (stored := getattr(stock, "normalization", None)) is not None:
        of = f" of {stock.name_or_path}" if stock.name_or_path else ""
        raise ValueError(
            f"the config{of} already carries the scheme {stored['scheme']!r}; build or load it as it is, with "
            "AutoModelForCausalLM, or start from a stock config"
        )
    return with_normalization(stock, of_config(stock), spec)


def from_config(
    stock: PretrainedConfig,
    scheme: str,
    *,
    final_norm: bool = True,
    attn_implementation: str | None = None,
    **options: Any,
) -> PreTrainedModel:
    """Build a causal LM with a scheme from a stock config, with the weights that transformers initialises.

    Works under `torch.device("meta")`: the scheme's parameters exist before anything is materialised.

    Raises:
        ValueError: unknown scheme, option or family.
    """
    wanted = config(stock, scheme, final_norm=final_norm, **options)
    return AutoModelForCausalLM.from_config(wanted, attn_implementation=attn_implementation)


def from_pretrained(
    path: str,
    scheme: str,
    *,
    final_norm: bool = True,
    dtype: str | torch.dtype = "auto",
    attn_implementation: str | None = None,
    **options: Any,
) -> PreTrainedModel:
    """Load a stock checkpoint into a model with a scheme, which then computes something else: train it.

    A checkpoint that was saved with a scheme needs none: `AutoModelForCausalLM.from_pretrained(path)`.

    Raises:
        ValueError: unknown scheme, option or family; a checkpoint that already carries a scheme, or that lacks
            weights of its own.
    """
    stock = AutoConfig.from_pretrained(path)
    wanted = config(stock, scheme, final_norm=final_norm, **options)
    model, report = AutoModelForCausalLM.from_pretrained(
        path, config=wanted, dtype=dtype, attn_implementation=attn_implementation, output_loading_info=True
    )
    if lacking := sorted(weight_names(stock) & set(report["missing_keys"])):
        raise ValueError(f"{path} lacks weights of a {of_config(stock).causal_lm}: {', '.join(lacking[:4])}")
    return model


def weight_names(config: PretrainedConfig) -> set[str]:
    """The names in the state dict of the causal LM that a config describes, stock or with a scheme; makes no weights.

    Raises:
        ValueError: an unknown family.
    """
    if getattr(config, "normalization", None) is None:
        kind = of_config(config).stock
    else:
        kind = model_class(FAMILIES[config.model_type.removeprefix(PREFIX)])
    with torch.device("meta"):
        return set(kind(copy.deepcopy(config)).state_dict())


def spec(model: nn.Module) -> NormalizationSpec:
    """The normalization that a causal LM carries; for a stock model, the scheme that its family ships with.

    Raises:
        ValueError: an unknown family; or a stock model that was built from a config with a scheme, which it ignores.
    """
    stored = getattr(model.config, "normalization", None)
    if stored is None:
        return NormalizationSpec.make(family_of(model).stock_scheme)
    if not any(isinstance(module, PatchedLayer) for module in model.modules()):
        raise ValueError(
            f"this {type(model).__name__} was built from a config with the scheme {stored['scheme']!r}, but its layers "
            "do not follow it: build it with AutoModelForCausalLM, not with a stock class"
        )
    return NormalizationSpec.from_dict(stored)


def plans(model: nn.Module) -> list[LayerPlan]:
    """The plan that each decoder layer really follows, first to last; a stock layer follows the scheme that its
    family ships with."""
    layers = decoder_layers(model)
    stock_plans = spec(model).plans(len(layers))
    return [
        layer.normalization_plan if isinstance(layer, PatchedLayer) else stock_plan
        for layer, stock_plan in zip(layers, stock_plans, strict=True)
    ]


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """The decoder layers of a causal LM, stock or with a scheme, first to last.

    Raises:
        ValueError: a model of an unknown family.
    """
    return family_of(model).decoder_layers(model)


def experts(model: nn.Module) -> dict[str, int]:
    """The parameters of a causal LM that hold one weight an expert, shaped (experts, ...), by their full names: how
    many of the experts one token passes through. Empty where there are none.

    Raises:
        ValueError: a model of an unknown family.
    """
    family = family_of(model)
    if family.experts is None:
        return {}
    config: Any = model.config
    active = getattr(config, family.experts.active)
    return {
        f"{family.layers}.{number}.{name}": active
        for number, layer in enumerate(family.decoder_layers(model))
        for name in dict(layer.named_parameters()).keys() & set(family.experts.weights)
    }


def describe(model: nn.Module, *, file: TextIO | None = None) -> None:
    """Print a causal LM's plan layer by layer: one line each, N being the layer's norm and F its sublayer.

    Raises:
        ValueError: a model of an unknown family.
    """
    normalization, out = spec(model), file or sys.stdout
    options = ", ".join(f"{name}={value}" for name, value in normalization.options.items() if value is not None)
    scheme = get_scheme(normalization.scheme)
    layer_plans = plans(model)
    print(f"{scheme.name}{f' ({options})' if options else ''}: {scheme.source}", file=out)
    width = len(str(len(layer_plans)))
    for number, plan in enumerate(layer_plans, start=1):
        print(f"  layer {number:>{width}}  x <- {plan}", file=out)
    if not normalization.final_norm:
        final = "dropped"
    elif layer_plans[-1].norm_post:
        final = "kept, so the last layer's output is normalised twice (as the papers' code does)"
    else:
        final = "kept"
    print(f"  final norm: {final}", file=out)


def family_of(model: nn.Module) -> Family:
    """The family of a causal LM, stock or with a scheme.

    Raises:
        ValueError: not in the table.
    """
    config: Any = model.config
    return FAMILIES.get(config.model_type.removeprefix(PREFIX)) or of_config(config)


def _family_of_stock(model: nn.Module) -> Family:
    if isinstance(model, PreTrainedModel):
        if any(isinstance(module, PatchedLayer) for module in model.modules()):
            raise ValueError(
                f"this model already carries the scheme {spec(model).scheme!r}; a scheme is placed once, in "
                "a stock model. Build or load a fresh one"
            )
        family = of_config(model.config)
        if type(model) is family.stock:
            return family
    raise ValueError(
        f"normalization.apply takes a causal LM as transformers builds it, not {type(model).__name__}; apply "
        "the scheme before wrapping or compiling the model"
    )
