"""The table of model families. A new family is one new entry here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import transformers
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from normalization.plan import Slot
from normalization.weights import Layout, columns, grouped_rows, rows, rows_by_head


@dataclass(frozen=True)
class Experts:
    """Where a layer with experts keeps them; paths are relative to one decoder layer, which may have none."""

    router: str = "mlp.gate"
    """The module that sends each token to its experts."""
    weights: tuple[str, ...] = ("mlp.experts.gate_up_proj", "mlp.experts.down_proj")
    """Parameters of shape (experts, ...)."""
    active: str = "num_experts_per_tok"
    """Field of the config: experts that one token passes through."""


@dataclass(frozen=True, eq=False)
class Family:
    """Where a family of Hugging Face causal LMs keeps what a scheme moves.

    Paths are relative to the causal LM (`layers`, `final_norm`) or to one decoder layer (all others).
    """

    model_type: str
    causal_lm: str
    """Class in `transformers`."""
    weights: Mapping[str, Layout]
    """Every weight matrix of a layer and what its parts are for; some layers may lack some."""
    layers: str = "model.layers"
    final_norm: str = "model.norm"
    attention: str = "self_attn"
    attention_norm: str = "input_layernorm"
    mlp: str = "mlp"
    mlp_norm: str = "post_attention_layernorm"
    norm_eps: str | None = "rms_norm_eps"
    """Field of the config with the norm's epsilon; None where the norm takes none."""
    unit_weight: float = 1.0
    """The weight with which a norm scales by one."""
    attention_dropout: str | None = None
    """Dropout of the attention branch, where the layer applies it itself; it belongs to the sublayer F."""
    mlp_dropout: str | None = None
    positional: tuple[str, ...] = ()
    """Names of what the model hands to a layer by position, after the hidden states."""
    experts: Experts | None = None
    """Where the family has a mixture of experts."""
    stock_scheme: str = "pre"
    """The scheme that the stock model follows, and that stays a stock checkpoint."""
    own_slot: Slot = "in"
    """Where the stock model has its norms; where a scheme has several, theirs stays there."""
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

    def new_norm(self, like: nn.Module, config: PretrainedConfig) -> nn.Module:
        """A norm of the kind, device and dtype of `like` that scales by one."""
        kind: Any = type(like)
        settings = {} if self.norm_eps is None else {"eps": getattr(config, self.norm_eps)}
        norm = kind(config.hidden_size, **settings)
        for own, other in zip(norm.parameters(), like.parameters(), strict=True):
            own.data = own.data.to(other.device, other.dtype)
        return norm

    def __reduce__(self) -> tuple[Callable[[str], Family], tuple[str]]:
        # An entry is one object: layers that are copied or unpickled point at it again.
        return _entry, (self.model_type,)


_ATTENTION: dict[str, Layout] = {
    "self_attn.q_proj.weight": rows("query"),
    "self_attn.k_proj.weight": rows("key"),
    "self_attn.v_proj.weight": rows("value"),
    "self_attn.o_proj.weight": rows("attention_output"),
}
_GATED_MLP: dict[str, Layout] = {
    "mlp.gate_proj.weight": rows("mlp_input"),
    "mlp.up_proj.weight": rows("mlp_input"),
    "mlp.down_proj.weight": rows("mlp_output"),
}
_EXPERTS: dict[str, Layout] = {
    "mlp.gate.weight": rows("router"),
    "mlp.experts.gate_up_proj": rows("mlp_input", "mlp_input"),
    "mlp.experts.down_proj": rows("mlp_output"),
}
_LLAMA = _ATTENTION | _GATED_MLP
_OUTPUT_NORM: dict[str, Any] = {
    "stock_scheme": "out",
    "own_slot": "out",
    "attention_norm": "post_attention_layernorm",
    "mlp_norm": "post_feedforward_layernorm",
    "weights": _LLAMA,
}

FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        Family("llama", "LlamaForCausalLM", weights=_LLAMA),
        Family("mistral", "MistralForCausalLM", weights=_LLAMA),
        Family("qwen2", "Qwen2ForCausalLM", weights=_LLAMA),
        Family("qwen3", "Qwen3ForCausalLM", weights=_LLAMA),
        Family("smollm3", "SmolLM3ForCausalLM", weights=_LLAMA),
        Family("gemma", "GemmaForCausalLM", unit_weight=0.0, weights=_LLAMA),
        Family("olmo", "OlmoForCausalLM", norm_eps=None, weights=_LLAMA),
        Family("olmo2", "Olmo2ForCausalLM", **_OUTPUT_NORM),
        Family("olmo3", "Olmo3ForCausalLM", **_OUTPUT_NORM),
        Family(
            "mixtral",
            "MixtralForCausalLM",
            weights=_ATTENTION | _EXPERTS,
            experts=Experts(),
            refuse=lambda config: (
                "router_jitter_noise multiplies the input of the MLP in place, which is the residual stream itself "
                "where no norm stands before it; set router_jitter_noise=0"
                if config.router_jitter_noise
                else None
            ),
        ),
        Family("qwen3_moe", "Qwen3MoeForCausalLM", weights=_LLAMA | _EXPERTS, experts=Experts()),
        Family(
            "phi3",
            "Phi3ForCausalLM",
            attention_dropout="resid_attn_dropout",
            mlp_dropout="resid_mlp_dropout",
            weights={
                "self_attn.qkv_proj.weight": grouped_rows,
                "self_attn.o_proj.weight": rows("attention_output"),
                "mlp.gate_up_proj.weight": rows("mlp_input", "mlp_input"),
                "mlp.down_proj.weight": rows("mlp_output"),
            },
        ),
        Family(
            "gpt2",
            "GPT2LMHeadModel",
            layers="transformer.h",
            final_norm="transformer.ln_f",
            attention="attn",
            attention_norm="ln_1",
            mlp_norm="ln_2",
            norm_eps="layer_norm_epsilon",
            positional=("past_key_values", "attention_mask", "encoder_hidden_states"),
            weights={
                "attn.c_attn.weight": columns("query", "key", "value"),
                "attn.c_proj.weight": columns("attention_output"),
                "mlp.c_fc.weight": columns("mlp_input"),
                "mlp.c_proj.weight": columns("mlp_output"),
            },
            refuse=lambda config: (
                "it has cross-attention, a third sublayer that no scheme here places"
                if config.add_cross_attention
                else None
            ),
        ),
        Family(
            "gpt_neox",
            "GPTNeoXForCausalLM",
            layers="gpt_neox.layers",
            final_norm="gpt_neox.final_layer_norm",
            attention="attention",
            norm_eps="layer_norm_eps",
            attention_dropout="post_attention_dropout",
            mlp_dropout="post_mlp_dropout",
            weights={
                "attention.query_key_value.weight": rows_by_head,
                "attention.dense.weight": rows("attention_output"),
                "mlp.dense_h_to_4h.weight": rows("mlp_input"),
                "mlp.dense_4h_to_h.weight": rows("mlp_output"),
            },
            refuse=lambda config: (
                "attention and MLP run side by side on the same input (use_parallel_residual), so there are no two "
                "sublayers in a row to place norms around; set use_parallel_residual=False and train anew"
                if config.use_parallel_residual
                else None
            ),
        ),
    )
}

_SCALED = "it multiplies its residual branches by a constant of its own, which a scheme's scales would meet unseen"
_PARALLEL = "attention and MLP run side by side on the same input, so there are no two sublayers in a row"
_TWO_NORMS = "it has two norms around each sublayer already (as peri has); a scheme would have to drop one of them"

REFUSED: dict[str, str] = {
    **dict.fromkeys(("granite", "granitemoe", "granitemoeshared", "granitemoehybrid", "minicpm3"), _SCALED),
    **dict.fromkeys(("cohere", "cohere2", "gptj", "phi", "falcon", "codegen"), _PARALLEL),
    **dict.fromkeys(("gemma2", "gemma3", "gemma3_text", "glm4"), _TWO_NORMS),
}
"""Families that are left out on purpose, and why."""


def _entry(model_type: str) -> Family:
    return FAMILIES[model_type]


def of_config(config: PretrainedConfig) -> Family:
    """The family of a stock config.

    Raises:
        ValueError: no entry for this model type (lists the families, says how to add one), or a config of a
            known family that cannot be patched (says why).
    """
    family = FAMILIES.get(config.model_type)
    if family is None and config.model_type in REFUSED:
        raise ValueError(
            f"no normalization scheme can be placed in a {config.model_type!r} model: {REFUSED[config.model_type]}. "
            f"Families: {', '.join(FAMILIES)}"
        )
    if family is None:
        raise ValueError(
            f"no normalization scheme can be placed in a {config.model_type!r} model: its family is not in "
            f"the table. Families: {', '.join(FAMILIES)}. To add one, write its entry in "
            "normalization/families.py: where its layers, their attention and MLP, and all norms are found."
        )
    if reason := family.refuse(config):
        raise ValueError(f"this {config.model_type!r} config cannot be patched: {reason}")
    return family
