"""Build the model of a run: from a preset, a config or a checkpoint, with its scheme in place from the start."""

from __future__ import annotations

from accelerate.utils import set_seed
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, PretrainedConfig, PreTrainedModel

import normalization
from lab.checkpoint import load_model
from lab.checkpoint.search import resolve
from lab.config.presets import check_preset
from lab.config.sections import RunConfig
from lab.errors import ConfigError
from normalization.specification import NormalizationSpec


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


def model_config(run: RunConfig, *, tokenizer_size: int, eos_token_id: int | None) -> PretrainedConfig:
    """The config of a run's model, with its scheme.

    Raises:
        ConfigError: a context that does not fit the data; a scheme that does not fit the model or its family, or is
            not the one that the checkpoint carries.
    """
    stock = _stock_config(run, tokenizer_size=tokenizer_size, eos_token_id=eos_token_id)
    longest = getattr(stock, "max_position_embeddings", None)
    if longest is not None and run.data.block_length > longest:
        raise ConfigError(
            f"--data.block-length {run.data.block_length}: the model's positions end at {longest} "
            "(max_position_embeddings of its config)"
        )
    spec = run.normalization.spec()
    carried = getattr(stock, "normalization", None)
    if carried is not None and carried != spec.to_dict():
        stored = NormalizationSpec.from_dict(carried)
        given = {name: value for name, value in stored.options.items() if value is not None}
        flags = " ".join(f"--normalization.{name.replace('_', '-')} {value}" for name, value in given.items())
        raise ConfigError(
            f"--normalization.scheme {spec.scheme}: the checkpoint {source_of(run)} carries another scheme; say "
            f"--normalization.scheme {stored.scheme} {flags}".rstrip()
        )
    options = {"final_norm": spec.final_norm, **spec.options}
    try:
        return stock if carried is not None else normalization.config(stock, spec.scheme, **options)
    except ValueError as error:
        raise ConfigError(f"--normalization.scheme {spec.scheme}: {error}") from error


def build_model(run: RunConfig, *, tokenizer_size: int, eos_token_id: int | None) -> PreTrainedModel:
    """The causal LM of a run, on the CPU, in float32, freshly initialised or from a checkpoint's weights.

    Raises:
        ConfigError: as `model_config`; an attention implementation that is not there.
        RunError: a checkpoint without the weights of its config, beside the norms that the scheme adds or drops.
    """
    config = model_config(run, tokenizer_size=tokenizer_size, eos_token_id=eos_token_id)
    settings = run.model
    if settings.checkpoint is not None:
        own = _stock_config(run, tokenizer_size=tokenizer_size, eos_token_id=eos_token_id)
        wanted, there = normalization.weight_names(config), normalization.weight_names(own)
        return load_model(
            source_of(run),
            dtype="float32",
            config=config,
            attn_implementation=settings.attention,
            added=wanted - there,
            dropped=there - wanted,
        )
    try:
        model = AutoModelForCausalLM.from_config(config, dtype="float32", attn_implementation=settings.attention)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"--model.attention {settings.attention}: {error}") from error
    # From the seed itself: how many numbers building has drawn before depends on how the model is sharded.
    set_seed(run.train.seed)
    normalization.initialize(model, settings.initialization, std=settings.std, embedding_std=settings.embedding_std)
    return model


def source_of(run: RunConfig) -> str:
    """What the model is made from: a checkpoint, a config or a preset."""
    if run.model.checkpoint is not None:
        return resolve(run.model.checkpoint)
    return run.model.config or run.model.preset


def _stock_config(run: RunConfig, *, tokenizer_size: int, eos_token_id: int | None) -> PretrainedConfig:
    wanted = run.model.vocab_size
    if run.model.checkpoint is None and run.model.config is None:
        return preset_config(
            run.model.preset,
            vocab_size=wanted or tokenizer_size,
            context=run.data.block_length,
            eos_token_id=eos_token_id,
        )
    source = source_of(run)
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
