"""Build the model of a run: from a preset, a config or a checkpoint, with its scheme in place from the start."""

from __future__ import annotations

import warnings

from accelerate.utils import set_seed
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, PretrainedConfig, PreTrainedModel

import normalization
from lab.checkpoint import load_model
from lab.checkpoint.load import not_loaded
from lab.checkpoint.search import resolve
from lab.config.presets import check_preset
from lab.config.sections import RunConfig
from lab.errors import ConfigError
from normalization.families import FAMILIES
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
        known = stock.model_type in FAMILIES
        blamed = f"--normalization.scheme {spec.scheme}" if known else f"--model.{_flag(run)} {source_of(run)}"
        raise ConfigError(f"{blamed}: {error}") from error


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


def _flag(run: RunConfig) -> str:
    return "checkpoint" if run.model.checkpoint is not None else "config"


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
    try:
        config = AutoConfig.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise ConfigError(f"--model.{_flag(run)} {source}: {not_loaded(source, error)}") from error
    # Nothing is padded here, and padding_idx would keep a real token's embedding from learning.
    config.pad_token_id = None
    _take_context(config, source)
    if run.model.checkpoint is not None:
        if wanted is not None and wanted != config.vocab_size:
            raise ConfigError(
                f"--model.vocab-size {wanted}: the checkpoint {source} has {config.vocab_size}; leave the flag out"
            )
        return config
    size = wanted or tokenizer_size or config.vocab_size
    if wanted is None and size != config.vocab_size:
        warnings.warn(
            f"the vocabulary has the {size:,} entries of the tokenizer, not the {config.vocab_size:,} of {source}; "
            f"--model.vocab-size {config.vocab_size} keeps those",
            stacklevel=2,
        )
    config.vocab_size, config.eos_token_id = size, eos_token_id
    return config


def _take_context(config: PretrainedConfig, source: str) -> None:
    """The configs that the papers of Mix-LN and LNS train with call the context max_sequence_length."""
    written, _ = PretrainedConfig.get_config_dict(source)
    length = written.get("max_sequence_length")
    if length is not None and "max_position_embeddings" not in written:
        config.max_position_embeddings = length
