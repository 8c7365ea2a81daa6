"""A checkpoint's folder that carries its own code: it loads with `trust_remote_code=True` without this package."""

from __future__ import annotations

import copy
import dataclasses
import re
from pathlib import Path

from transformers import PretrainedConfig, PreTrainedModel

from normalization.api import family_of, plans, spec
from normalization.auto import become, config_class, model_class
from normalization.families import Family

MODELING = "modeling_depthlab.py"
_MODULES = ("plan", "weights", "families", "layers", "guard")
"""What a patched model needs, copied as it is: the code that computes is the same here and there."""

_MODELING = '''"""{stock} with the normalization scheme that its config names; written by depthlab {version}."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import {config}, {stock}
from transformers.conversion_mapping import get_checkpoint_conversion_mapping, register_checkpoint_conversion_mapping

from .depthlab_families import FAMILIES
from .depthlab_guard import GuardedConfig
from .depthlab_layers import patch
from .depthlab_plan import LayerPlan


class Depthlab{config}(GuardedConfig, {config}):
    model_type = "depthlab_{model_type}"
    needed = "trust_remote_code=True"
    normalization: dict[str, Any] | None = None


class Depthlab{stock}({stock}):
    config_class = Depthlab{config}

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        family = FAMILIES["{model_type}"]
        planned = config.normalization["options"]["layers"]
        for layer, fields in zip(family.decoder_layers(self), planned, strict=True):
            patch(layer, LayerPlan(**fields), family, config)
        if not config.normalization["final_norm"]:
            self.set_submodule(family.final_norm, nn.Identity())

    # transformers looks for the answer in the source of the class's module.
    @classmethod
    def _can_set_attn_implementation(cls) -> bool:
        return {stock}._can_set_attn_implementation()

    @classmethod
    def _can_set_experts_implementation(cls) -> bool:
        return {stock}._can_set_experts_implementation()


for own, others in (("depthlab_{model_type}", "{model_type}"), ("Depthlab{stock}", "{stock}")):
    if (conversion := get_checkpoint_conversion_mapping(others)) is not None:
        register_checkpoint_conversion_mapping(own, conversion, overwrite=True)
'''


def save_with_code(model: PreTrainedModel, folder: Path, *, version: str) -> None:
    """Write a causal LM with its weights, config and code to a folder.

    The config names the plan layer by layer (scheme `mixed`), so that the folder also loads where depthlab is
    installed. Weights are safetensors.

    Args:
        model: with or without a scheme.
        folder: is made.
        version: of depthlab, for the record.

    Raises:
        ValueError: a model of an unknown family.
    """
    family = family_of(model)
    stored = copy.copy(model)
    stored.__class__ = model_class(family)  # its layers carry out their plans, whatever its class was called
    stored.config = _config_with_plans(model, family)
    stored.save_pretrained(folder, is_main_process=True)
    for name in _MODULES:
        source = Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")
        (folder / f"depthlab_{name}.py").write_text(
            re.sub(r"from normalization\.(\w+) import", r"from .depthlab_\1 import", source), encoding="utf-8"
        )
    (folder / MODELING).write_text(
        _MODELING.format(
            stock=family.causal_lm,
            config=family.stock.config_class.__name__,
            model_type=family.model_type,
            version=version,
        ),
        encoding="utf-8",
    )


def _config_with_plans(model: PreTrainedModel, family: Family) -> PretrainedConfig:
    config = copy.deepcopy(model.config)
    become(config, config_class(family))
    config.normalization = {
        "scheme": "mixed",
        "options": {"layers": [dataclasses.asdict(planned) for planned in plans(model)]},
        "final_norm": spec(model).final_norm,
    }
    module = MODELING.removesuffix(".py")
    stock = family.stock.config_class.__name__
    config.auto_map = {
        "AutoConfig": f"{module}.Depthlab{stock}",
        "AutoModelForCausalLM": f"{module}.Depthlab{family.causal_lm}",
    }
    config.architectures = [f"Depthlab{family.causal_lm}"]
    return config
