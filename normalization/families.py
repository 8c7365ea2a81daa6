"""The table of model families. A new family is one new entry here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import transformers
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

Role = Literal["query", "key", "value", "attention_output", "mlp_input", "mlp_output"]


@dataclass(frozen=True, eq=False)
class Family:
    """Where a family of Hugging Face causal LMs keeps what a scheme moves.

    Paths are relative to the causal LM (`layers`, `final_norm`) or to one decoder layer (all others).
    """

    model_type: str
    causal_lm: str
    """Class in `transformers`."""
    layers: str
    final_norm: str
    attention: str
    attention_norm: str
    mlp: str
    mlp_norm: str
    norm_eps: str
    """Field of the config with the norm's epsilon."""
    weights: Mapping[str, tuple[Role, ...]]
    """Weight matrices of a layer and their role; more than one where several are fused, in equal parts."""
    positional: tuple[str, ...] = ()
    """Names of what the model hands to a layer by position, after the hidden states."""
    refuse: Callable[[Any], str | None] = lambda config: None
    """Why a config of this family cannot be patched, or None."""

    @property
    def stock(self) -> type[PreTrainedModel]:
        """The causal LM class of transformers."""
        return getattr(transformers, self.causal_lm)

    def decoder_layers(self, model: nn.Module) -> nn.ModuleList:
        """The decoder layers of a causal LM of this family, first to last."""
        layers = model.get_submodule(self.layers)
        assert isinstance(layers, nn.ModuleList)
        return layers

    def __reduce__(self) -> tuple[Callable[[str], Family], tuple[str]]:
        # An entry is one object: layers that are copied or unpickled point at it again.
        return _entry, (self.model_type,)


_LLAMA_LIKE: dict[str, Any] = {
    "layers": "model.layers",
    "final_norm": "model.norm",
    "attention": "self_attn",
    "attention_norm": "input_layernorm",
    "mlp": "mlp",
    "mlp_norm": "post_attention_layernorm",
    "norm_eps": "rms_norm_eps",
    "weights": {
        "self_attn.q_proj": ("query",),
        "self_attn.k_proj": ("key",),
        "self_attn.v_proj": ("value",),
        "self_attn.o_proj": ("attention_output",),
        "mlp.gate_proj": ("mlp_input",),
        "mlp.up_proj": ("mlp_input",),
        "mlp.down_proj": ("mlp_output",),
    },
}

FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        Family("llama", "LlamaForCausalLM", **_LLAMA_LIKE),
        Family("qwen3", "Qwen3ForCausalLM", **_LLAMA_LIKE),
        Family(
            "gpt2",
            "GPT2LMHeadModel",
            layers="transformer.h",
            final_norm="transformer.ln_f",
            attention="attn",
            attention_norm="ln_1",
            mlp="mlp",
            mlp_norm="ln_2",
            norm_eps="layer_norm_epsilon",
            weights={
                "attn.c_attn": ("query", "key", "value"),
                "attn.c_proj": ("attention_output",),
                "mlp.c_fc": ("mlp_input",),
                "mlp.c_proj": ("mlp_output",),
            },
            positional=("past_key_values", "attention_mask", "encoder_hidden_states"),
            refuse=lambda config: (
                "it has cross-attention, a third sublayer that no scheme here places"
                if config.add_cross_attention
                else None
            ),
        ),
    )
}


def _entry(model_type: str) -> Family:
    return FAMILIES[model_type]


def of_config(config: PretrainedConfig) -> Family:
    """The family of a stock config.

    Raises:
        ValueError: no entry for this model type (lists the families, says how to add one), or a config of a
            known family that cannot be patched (says why).
    """
    family = FAMILIES.get(config.model_type)
    if family is None:
        raise ValueError(
            f"no normalization scheme can be placed in a {config.model_type!r} model: its family is not in "
            f"the table. Families: {', '.join(FAMILIES)}. To add one, write its entry in "
            "normalization/families.py: where its layers, their attention and MLP, and all norms are found."
        )
    if reason := family.refuse(config):
        raise ValueError(f"this {config.model_type!r} config cannot be patched: {reason}")
    return family
