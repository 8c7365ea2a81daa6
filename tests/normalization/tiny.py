"""Tiny models of every family, with weights that let a misplaced norm show, and the cases that tests walk."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

import normalization
from normalization import families, schemes
from tests.normalization import oracle

FAMILIES = tuple(families.FAMILIES)
SCHEMES = schemes.names()
LAYERS = 5

SIZES: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
    "attn_pdrop": 0.0,
    "resid_pdrop": 0.0,
    "embd_pdrop": 0.0,
}
"""By the names that transformers uses throughout; a family ignores those that it has no use for."""

OWN: dict[str, dict[str, Any]] = {
    "mistral": {"sliding_window": 4},
    "gemma": {"head_dim": 12},
    "olmo3": {"sliding_window": 4},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen3_moe": {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 24,
        "norm_topk_prob": True,
        "mlp_only_layers": [1],
    },
    "phi3": {"partial_rotary_factor": 0.5},
    "gpt_neox": {"rotary_pct": 0.5, "use_parallel_residual": False},
}
"""What makes a family itself, small enough to show: windows shorter than the texts, few experts."""

REPRESENTATIVES = ("llama", "gemma", "olmo2", "mixtral", "gpt2", "gpt_neox")
"""Every kind of norm, layout, stock scheme and layer call, for properties that cost much or depend on little else."""

CASES = [(scheme, oracle.NEEDED.get(scheme, {})) for scheme in SCHEMES] + [
    (scheme, options) for scheme, tried in oracle.OPTIONS.items() for options in tried
]

each_family = pytest.mark.parametrize("family", FAMILIES)
each_representative = pytest.mark.parametrize("family", REPRESENTATIVES)
each_scheme = pytest.mark.parametrize("scheme", SCHEMES)
each_family_and_attention = pytest.mark.parametrize(
    ("family", "attention"),
    [(family, "sdpa") for family in FAMILIES] + [(family, "eager") for family in REPRESENTATIVES],
)
each_case = pytest.mark.parametrize(
    ("scheme", "options"),
    CASES,
    ids=[scheme + "".join(f"-{k}={v}" for k, v in o.items()) for scheme, o in CASES],
)


def config(family: str, **changes: Any) -> Any:
    return AutoConfig.for_model(family, **(SIZES | OWN.get(family, {}) | changes))


def family_of(model: Any) -> str:
    return model.config.model_type.removeprefix("depthlab_")


def stock_scheme(family: str) -> str:
    return "out" if family in ("olmo2", "olmo3") else "pre"


@torch.no_grad()
def randomize(model: Any, seed: int = 0) -> Any:
    """Random norms and biases too: with ones and zeros, a misplaced or swapped norm hardly shows."""
    generator = torch.Generator().manual_seed(seed)
    unit = oracle.NETWORKS[family_of(model)].unit
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        if parameter.ndim > 1:
            parameter.copy_(noise / parameter.shape[-1] ** 0.5)
        elif name.endswith("bias"):
            parameter.copy_(0.3 * noise)
        else:
            parameter.copy_(unit + 0.4 * noise.clamp(-2, 2))
    return model.eval()


def stock(family: str, attention: str | None = None, **changes: Any) -> Any:
    # Grouped matrix products of experts know no float64, so eager attention, which tests of float64 use, goes with
    # eager experts.
    experts = {"experts_implementation": "eager"} if attention == "eager" else {}
    stock_config = config(family, **experts, **changes)
    return randomize(AutoModelForCausalLM.from_config(stock_config, attn_implementation=attention))


def patched(
    family: str,
    scheme: str,
    options: dict[str, Any] | None = None,
    *,
    final_norm: bool = True,
    attention: str | None = None,
    **changes: Any,
) -> Any:
    model = stock(family, attention, **changes)
    options = oracle.NEEDED.get(scheme, {}) | (options or {})
    return randomize(normalization.apply(model, scheme, final_norm=final_norm, **options))


def tokens(batch: int = 2, length: int = 11, seed: int = 0, vocabulary: int = SIZES["vocab_size"]) -> Tensor:
    return torch.randint(vocabulary, (batch, length), generator=torch.Generator().manual_seed(seed))


def layers(model: Any) -> Any:
    return families.FAMILIES[family_of(model)].decoder_layers(model)


@torch.no_grad()
def logits(model: Any, ids: Tensor | None = None) -> Tensor:
    return model(tokens() if ids is None else ids, use_cache=False).logits


def exact_logits(model: Any, ids: Tensor | None = None) -> Tensor:
    """Logits that follow from the weights' values alone: of a copy, so that every weight lies in memory as a fresh one
    does (where a file is mapped, it lies unaligned, and products of such sizes may take another kernel), and with
    experts one by one, since the products of a group depend on what lies beside them."""
    model = copy.deepcopy(model)
    if normalization.experts(model):
        model.set_experts_implementation("eager")
    return logits(model, ids)


@contextmanager
def all_float64() -> Iterator[None]:
    """Inside, code that asks for float32 gets float64: norms, rotary tables and softmax of transformers ask
    for it, whatever a model's dtype. Build and run a model inside to compare it with an exact formula."""
    single = torch.float32
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "float32", torch.float64)
        patch.setattr(torch, "float", torch.float64)
        patch.setattr(torch.Tensor, "float", torch.Tensor.double)
        torch.set_default_dtype(torch.float64)
        try:
            yield
        finally:
            torch.set_default_dtype(single)
