"""Begin, end and padding token: the same in a model's config, its generation config and its tokenizer."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import PreTrainedModel


def agree_on_ids(model: PreTrainedModel, tokenizer: Any) -> None:
    """Give a model that is trained, in place, the special tokens of the tokenizer that its text is read with.

    A list of end tokens that has the tokenizer's in it stays. The config names no padding token, and no row of the
    embedding is kept from learning as one: nothing is padded in training, and that row would be a real token's, such as
    the end token's. What pads a batch of prompts is said by the generation config.
    """
    config, generation = model.config, model.generation_config
    ends = config.eos_token_id
    end = ends if isinstance(ends, list) and tokenizer.eos_token_id in ends else tokenizer.eos_token_id
    for settings in (config, generation):
        if settings is not None:
            settings.eos_token_id, settings.bos_token_id = end, tokenizer.bos_token_id
    if generation is not None:
        generation.pad_token_id = tokenizer.pad_token_id
    config.pad_token_id = None
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            module.padding_idx = None
