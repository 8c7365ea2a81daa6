"""Normalization schemes for Hugging Face causal LMs.

    import normalization

    normalization.apply(model, "mix", post_layers=4)   # a built model, in place
    normalization.describe(model)                      # its plan, layer by layer

Importing this package registers our model types with transformers' Auto classes, so that checkpoints saved
with a scheme load through `AutoModelForCausalLM.from_pretrained`.
"""

from __future__ import annotations

from normalization.api import (
    apply,
    config,
    decoder_layers,
    describe,
    experts,
    from_config,
    from_pretrained,
    plans,
    spec,
    weight_names,
)
from normalization.auto import register as _register
from normalization.folding import fold, from_pre_ln
from normalization.initialization import initialize
from normalization.plan import LayerPlan
from normalization.specification import NormalizationSpec

_register()

__all__ = [
    "LayerPlan",
    "NormalizationSpec",
    "apply",
    "config",
    "decoder_layers",
    "describe",
    "experts",
    "fold",
    "from_config",
    "from_pre_ln",
    "from_pretrained",
    "initialize",
    "plans",
    "spec",
    "weight_names",
]
