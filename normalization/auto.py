"""Configs and models of our own for every family, registered with the Auto classes, so that a checkpoint with
a scheme either loads with that scheme or fails, and never loads as a stock model."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.conversion_mapping import get_checkpoint_conversion_mapping, register_checkpoint_conversion_mapping

from normalization.families import FAMILIES, Family
from normalization.guard import GuardedConfig
from normalization.layers import patch
from normalization.specification import NormalizationSpec

PREFIX = "depthlab_"


@cache
def config_class(family: Family) -> type[PretrainedConfig]:
    """`depthlab_FAMILY`: the family's config with a `normalization` field, checked when a config is made."""
    stock: Any = family.stock.config_class

    def post_init(self: Any, **kwargs: Any) -> None:
        stock.__post_init__(self, **kwargs)
        if self.normalization is not None:
            NormalizationSpec.from_dict(self.normalization).plans(self.num_hidden_layers)

    return type(
        f"Depthlab{stock.__name__}",
        (GuardedConfig, stock),
        {
            "__module__": __name__,
            "__doc__": f"`{stock.__name__}` and the normalization scheme of its layers.",
            "__annotations__": {"normalization": dict[str, Any] | None},
            "__post_init__": post_init,
            "model_type": PREFIX + family.model_type,
            "needed": "the Python package depthlab (install its source, then `import normalization` before loading; "
            "trust_remote_code does not replace it)",
            "normalization": None,
        },
    )


@cache
def model_class(family: Family) -> type[PreTrainedModel]:
    """The family's causal LM, its layers patched in `__init__`: before weights are loaded, on any device."""
    stock: Any = family.stock

    def init(self: Any, config: Any, *args: Any, **kwargs: Any) -> None:
        if config.normalization is None:
            raise ValueError(
                f"a {config.model_type!r} config must name its scheme in `normalization`; make one with "
                "normalization.config(stock_config, scheme, ...)"
            )
        stock.__init__(self, config, *args, **kwargs)
        place(self, family, NormalizationSpec.from_dict(config.normalization))

    return type(
        f"Depthlab{stock.__name__}",
        (stock,),
        {
            "__module__": __name__,
            "__doc__": f"`{stock.__name__}` with a normalization scheme.",
            "__init__": init,
            "config_class": config_class(family),
            # transformers looks for the answer in the source of the class's module.
            "_can_set_attn_implementation": classmethod(lambda cls: stock._can_set_attn_implementation()),
            "_can_set_experts_implementation": classmethod(lambda cls: stock._can_set_experts_implementation()),
        },
    )


def place(model: nn.Module, family: Family, spec: NormalizationSpec) -> None:
    """Patch every layer of a stock causal LM in place. Changes no existing weight."""
    config: Any = model.config
    layers = family.decoder_layers(model)
    for layer, plan in zip(layers, spec.plans(len(layers)), strict=True):
        patch(layer, plan, family, config)
    if not spec.final_norm:
        model.set_submodule(family.final_norm, nn.Identity())


def with_normalization(stock: PretrainedConfig, family: Family, spec: NormalizationSpec) -> PretrainedConfig:
    """A copy of a stock config that names the scheme; a plain copy where a stock config says it already.

    Raises:
        ValueError: the scheme refuses its options at this config's depth.
    """
    spec.plans(stock.num_hidden_layers)
    config = copy.deepcopy(stock)
    if spec.scheme != family.stock_scheme:
        become(config, config_class(family))
        config.normalization = spec.to_dict()
    return config


def become(config: PretrainedConfig, kind: type[PretrainedConfig]) -> None:
    """Make a config one of another class, in place."""
    config.__class__ = kind
    # A config that was read from a file also holds its model type itself, which would hide the class's.
    vars(config).pop("model_type", None)


def stock_config(config: PretrainedConfig, family: Family) -> PretrainedConfig:
    """A copy of a config without its scheme: the family's stock config with the same architecture."""
    stock = copy.deepcopy(config)
    if isinstance(stock, config_class(family)):
        del stock.normalization
        become(stock, family.stock.config_class)
    stock.architectures = None
    return stock


def register() -> None:
    """Make transformers know every family's config, model and layout of files."""
    for family in FAMILIES.values():
        config = config_class(family)
        AutoConfig.register(config.model_type, config, exist_ok=True)
        AutoModelForCausalLM.register(config, model_class(family), exist_ok=True)
        # Some files hold weights under other names or in other shapes than memory (GPT-NeoX's head, experts);
        # transformers finds what to do by the stock model's type or class.
        for stock, ours in ((family.model_type, config.model_type), (family.causal_lm, model_class(family).__name__)):
            if (conversion := get_checkpoint_conversion_mapping(stock)) is not None:
                register_checkpoint_conversion_mapping(ours, conversion, overwrite=True)


def __getattr__(name: str) -> type:
    # Pickle finds the classes of a config or model by their names in this module.
    for family in FAMILIES.values():
        for made in (config_class(family), model_class(family)):
            if made.__name__ == name:
                return made
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
