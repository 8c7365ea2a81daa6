"""A causal LM without some of its layers: a smaller model that loads everywhere."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

import normalization
from lab.model.handover import difference, longest_input, positions
from normalization.api import family_of
from normalization.auto import stock_config

_BY_LAYER = ("layer_types", "no_rope_layers")
"""Fields of the families' configs with one entry a layer."""


def without(model: PreTrainedModel, removed: Sequence[int]) -> PreTrainedModel:
    """A causal LM without some of its layers, counted from 1; the others keep weights, norms and scales.

    Raises:
        ValueError: a family or config whose layers depend on their number in a way that a config cannot say.
    """
    family = family_of(model)
    kept = [index for index in range(model.config.num_hidden_layers) if index + 1 not in removed]
    config = _smaller_config(model, kept)
    prefix = f"{family.layers}."
    new_index = {old: new for new, old in enumerate(kept)}
    weights = {}
    for name, tensor in model.state_dict().items():
        if name.startswith(prefix):
            number, _, rest = name.removeprefix(prefix).partition(".")
            if int(number) not in new_index:
                continue
            name = f"{prefix}{new_index[int(number)]}.{rest}"  # noqa: PLW2901
        weights[name] = tensor
    smaller = AutoModelForCausalLM.from_config(config, dtype=model.dtype)
    smaller.load_state_dict(weights, strict=True)
    smaller.generation_config = copy.deepcopy(model.generation_config)
    return smaller.eval()


@torch.no_grad()
def difference_to_skipping(smaller: PreTrainedModel, model: PreTrainedModel, removed: Sequence[int]) -> float:
    """The `difference` between the logits of the smaller model and of the whole one with layers skipped, on random
    tokens."""

    def skip(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        stream = args[0] if args else kwargs["hidden_states"]
        return (stream, *output[1:]) if isinstance(output, tuple) else stream

    length = longest_input(model)
    ids = torch.randint(model.config.vocab_size, (1, length), generator=torch.Generator().manual_seed(0))
    kept = positions(length)
    layers = normalization.decoder_layers(model)
    handles = [layers[number - 1].register_forward_hook(skip, with_kwargs=True) for number in removed]
    try:
        wanted = model.eval()(ids, use_cache=False, logits_to_keep=kept).logits.float()
    finally:
        for handle in handles:
            handle.remove()
    found = smaller(ids, use_cache=False, logits_to_keep=kept).logits.float()
    return difference(found, wanted, model)


def _smaller_config(model: PreTrainedModel, kept: Sequence[int]) -> PretrainedConfig:
    family = family_of(model)
    config: Any = stock_config(model.config, family)
    for unwanted in ("quantization_config",):  # of a GGUF file, whose weights are dequantised when they are loaded
        if hasattr(config, unwanted):
            delattr(config, unwanted)
    if getattr(config, "scale_attn_by_inverse_layer_idx", False):
        raise ValueError(
            "this model divides attention by the layer's number (scale_attn_by_inverse_layer_idx), which renumbering "
            "would change; it cannot be pruned"
        )
    for name in _BY_LAYER:
        if (value := getattr(config, name, None)) is not None:
            setattr(config, name, [value[index] for index in kept])
    if hasattr(config, "mlp_only_layers"):
        _renumber_dense_layers(config, kept)
    if hasattr(config, "max_window_layers"):
        config.max_window_layers = min(config.max_window_layers, len(kept))
    config.num_hidden_layers = len(kept)
    plans = [plan for index, plan in enumerate(normalization.plans(model)) if index in kept]
    spec = normalization.spec(model)
    if spec.scheme == family.stock_scheme:
        return config
    as_before = {"final_norm": spec.final_norm, **spec.options}
    try:
        same = normalization.NormalizationSpec.make(spec.scheme, **as_before).plans(len(kept)) == plans
    except ValueError:
        same = False
    if same:
        return normalization.config(config, spec.scheme, **as_before)
    # A scale such as 1/sqrt(l) stays what it was when l was counted in the whole model.
    return normalization.config(config, "mixed", final_norm=spec.final_norm, layers=plans)


def _renumber_dense_layers(config: Any, kept: Sequence[int]) -> None:
    """Which layers have no experts (Qwen3-MoE): by a list and by a stride of layer numbers; then by a list alone."""
    step = config.decoder_sparse_step
    dense = [
        new
        for new, old in enumerate(kept)
        if old in config.mlp_only_layers or not config.num_experts or (old + 1) % step
    ]
    config.mlp_only_layers, config.decoder_sparse_step = dense, 1
