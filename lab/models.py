"""Build the model of a run: from a preset, a config or a checkpoint, with its scheme in place from the start."""

from __future__ import annotations

from transformers import AutoConfig, LlamaConfig, PretrainedConfig, PreTrainedModel

import normalization
from lab.config import RunConfig
from lab.errors import ConfigError
from lab.presets import check_preset


def preset_config(name: str, *, vocab_size: int, context: int, eos_token_id: int | None) -> LlamaConfig:
    """The LLaMA config of a preset.

    Args:
        vocab_size: in tokens.
        context: longest sequence, in tokens.
        eos_token_id: the tokenizer's end token.
    """
    size = check_preset(name)
    # No pad_token_id: padding_idx would freeze a real token's embedding at zero.
    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=size.width,
        intermediate_size=size.mlp_width,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        max_position_embeddings=context,
        rms_norm_eps=1e-6,
        bos_token_id=None,
        eos_token_id=eos_token_id,
    )


def build_model(run: RunConfig, *, tokenizer_size: int, eos_token_id: int | None) -> PreTrainedModel:
    """The causal LM of a run, on the CPU, in float32, freshly initialised or from a checkpoint's weights.

    Raises:
        ConfigError: a vocabulary or context that does not fit the data; a scheme that does not fit the model.
        ValueError: a model family that no scheme can be placed in.
    """
    stock = _stock_config(run, tokenizer_size=tokenizer_size, eos_token_id=eos_token_id)
    longest = getattr(stock, "max_position_embeddings", None)
    if longest is not None and run.data.block_length > longest:
        raise ConfigError(
            f"--data.block-length {run.data.block_length}: the model's positions end at {longest} "
            "(max_position_embeddings of its config)"
        )
    spec = run.normalization.spec()
    try:
        spec.plans(stock.num_hidden_layers)
    except ValueError as error:
        raise ConfigError(f"--normalization.*: {error}") from error

    model_settings = run.model
    options = {"final_norm": spec.final_norm, **spec.options}
    if model_settings.checkpoint is not None:
        if getattr(stock, "normalization", None) is not None:
            from transformers import AutoModelForCausalLM

            model = AutoModelForCausalLM.from_pretrained(model_settings.checkpoint, dtype="float32")
        else:
            model = normalization.from_pretrained(
                model_settings.checkpoint,
                spec.scheme,
                dtype="float32",
                attn_implementation=model_settings.attention,
                **options,
            )
    else:
        model = normalization.from_config(
            stock, spec.scheme, attn_implementation=model_settings.attention, **options
        )
        normalization.initialize(
            model,
            model_settings.initialization,
            std=model_settings.std,
            embedding_std=model_settings.embedding_std,
        )
    return model


def _stock_config(run: RunConfig, *, tokenizer_size: int, eos_token_id: int | None) -> PretrainedConfig:
    wanted = run.model.vocab_size
    if run.model.checkpoint is None and run.model.config is None:
        return preset_config(
            run.model.preset,
            vocab_size=wanted or tokenizer_size,
            context=run.data.block_length,
            eos_token_id=eos_token_id,
        )
    source = run.model.checkpoint or run.model.config
    flag = "checkpoint" if run.model.checkpoint else "config"
    try:
        config = AutoConfig.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise ConfigError(f"--model.{flag} {source}: {error}") from error
    if wanted is not None:
        if run.model.checkpoint is not None and wanted != config.vocab_size:
            raise ConfigError(
                f"--model.vocab-size {wanted}: the checkpoint {source} has {config.vocab_size}; leave the flag out"
            )
        config.vocab_size = wanted
    return config
