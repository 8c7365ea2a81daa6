"""Where the probe comes from: a run's held-out blocks, any text, saved token ids, or the probe of a record."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from lab.config.read import load as load_settings
from lab.data.begin import begin_token
from lab.data.config import BeginToken, DataConfig
from lab.data.corpus import prepare
from lab.data.documents import Skipped
from lab.data.encoder import Encoder
from lab.data.errors import DataError
from lab.data.local import LocalSource
from lab.data.packing import IGNORED, Blocks
from lab.data.sources import resolve_source
from lab.data.token_file import encode_documents
from lab.diagnostics.engine.probe import Probe
from lab.diagnostics.record import load
from lab.errors import ConfigError, RunError
from lab.runfolder.folder import CONFIG, TOKENIZER

TOKENS = 4096
"""Of a probe, about, if the number of blocks is not given."""
LENGTH = 512
"""Tokens of a block, at most, if not given."""
READ_AHEAD = 64
"""Text is read until there are this many times the tokens that are wanted, and blocks drawn from there."""


def number_of_blocks(blocks: int | None, length: int) -> int:
    """8, or as many as make about `TOKENS` tokens."""
    return blocks if blocks is not None else max(8, TOKENS // length)


def of_blocks(heldout: Blocks, blocks: int | None, *, seed: int, source: str) -> Probe:
    """Blocks of a token stream, drawn with a seed and kept in order; all of them if there are no more."""
    wanted = number_of_blocks(blocks, heldout.block_length)
    indices = np.arange(len(heldout))
    if len(heldout) > wanted:
        indices = np.sort(np.random.default_rng(seed).choice(len(heldout), wanted, replace=False))
    batch = heldout.batch(indices)
    at = indices[:, None] * heldout.block_length + np.arange(heldout.block_length)
    positions = batch["position_ids"].numpy() if "position_ids" in batch else None
    real = at < len(heldout.tokens)
    return Probe(batch["input_ids"].numpy(), batch["targets"].numpy(), real, positions, source)


def of_run(run_dir: Path, *, blocks: int | None, length: int | None, seed: int) -> Probe:
    """Held-out blocks of a run, tokenised as the run did (or found in its cache).

    Raises:
        UserError: the run's settings or its data are not there any more.
    """
    from transformers import AutoTokenizer

    run = load_settings(run_dir / CONFIG)
    if not (run_dir / TOKENIZER).is_dir():
        raise RunError(f"{run_dir} has no {TOKENIZER}/, so its held-out text cannot be read; give a --probe")
    tokenizer = AutoTokenizer.from_pretrained(run_dir / TOKENIZER)
    corpus = prepare(run.data, tokenizer, seed=run.train.seed, progress=False)
    heldout = corpus.heldout
    if length is not None:
        heldout = Blocks(heldout.tokens, block_length=length, end=heldout.end, isolate=heldout.isolate)
    probe = of_blocks(heldout, blocks, seed=seed, source=f"held-out blocks of {' '.join(run.data.source)}")
    return replace(probe, begin_token=corpus.summary()["begin_token"])


def of_text(
    name: str,
    tokenizer: Any,
    *,
    blocks: int | None,
    length: int,
    seed: int,
    begin: BeginToken = "auto",
    model_type: str = "",
    **data: Any,
) -> Probe:
    """Blocks of any text that `--data.source` takes: documents joined with the end token.

    With a begin token it stands before every document, and in place of the first token of a block that begins within
    one; nothing is predicted from that alone.

    Args:
        name: file, folder, glob, `builtin` or hub name.
        tokenizer: the model's.
        blocks: how many; about `TOKENS` tokens if None.
        length: T.
        seed: draws the blocks.
        begin: whether there is a begin token, as `begin_token` takes it.
        model_type: of the model's config, for that.
        **data: more settings of `DataConfig`, such as `field`.

    Raises:
        UserError: no such text, or a model without a tokenizer.
    """
    if tokenizer is None:
        raise RunError(
            f"--probe {name}: the model comes without a tokenizer, so text cannot be read; give token ids, an array "
            "(blocks, tokens) in a .npy file"
        )
    before = begin_token(tokenizer, begin, flag="--begin-token", model_type=model_type)
    try:
        encoder = Encoder.of(tokenizer, before)
    except DataError as error:
        reason = str(error).partition(": ")[2].partition(". ")[0]
        raise RunError(
            f"--probe {name}: text cannot be read with the tokenizer of this model: {reason}. Give token ids, an array "
            "(blocks, tokens) in a .npy file, with --probe"
        ) from error
    source = resolve_source(DataConfig(source=(name,), **data))
    skipped = Skipped()
    documents = (
        source.documents(skipped) if isinstance(source, LocalSource) else source.documents(skipped, progress=False)
    )
    wanted = READ_AHEAD * number_of_blocks(blocks, length) * length
    pieces, tokens = [], 0
    for _, ids in encode_documents(documents, encoder):
        pieces.append(ids)
        tokens += len(ids)
        if tokens > wanted:
            break
    stream = Blocks(np.concatenate(pieces), block_length=length, end=encoder.end, isolate=False)
    probe = of_blocks(stream, blocks, seed=seed, source=name)
    return probe if encoder.begin is None else _begun(probe, encoder.begin)


def _begun(probe: Probe, begin: int) -> Probe:
    """A probe whose blocks all begin with the begin token."""
    ids, targets = probe.input_ids.copy(), probe.targets.copy()
    targets[ids[:, 0] != begin, 0] = IGNORED
    ids[:, 0] = begin
    return replace(probe, input_ids=ids, targets=targets, begin_token=begin)


def of_file(path: Path, *, blocks: int | None, length: int, seed: int) -> Probe:
    """Token ids that were saved: an array (blocks, tokens) or a stream (tokens,) in `.npy`, or the probe of a record
    (its `.json` or `.safetensors`), which is taken as it is.

    Raises:
        RunError: no such file, or no such content.
    """
    if path.suffix == ".json":
        return load(path).probe
    try:
        if path.suffix == ".safetensors":
            arrays = load_file(path)
            named = {name.removeprefix("probe/"): array for name, array in arrays.items()}
            return Probe.from_arrays(named, str(path)) if "targets" in named else Probe.from_ids(named["input_ids"])
        ids = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, KeyError, SafetensorError) as error:
        raise RunError(f"--probe {path}: no token ids can be read from it ({error})") from error
    if not isinstance(ids, np.ndarray):
        raise RunError(f"--probe {path}: holds several arrays; save one with numpy.save")
    if ids.ndim == 1 and np.issubdtype(ids.dtype, np.integer) and len(ids) > 1:
        stream = Blocks(ids.astype(np.int64), block_length=length, end=0, isolate=False)
        return of_blocks(stream, blocks, seed=seed, source=str(path))
    probe = Probe.from_ids(ids, str(path))
    if blocks is not None and blocks < len(probe):
        probe = replace(
            probe, input_ids=probe.input_ids[:blocks], targets=probe.targets[:blocks], real=probe.real[:blocks]
        )
    return probe


def make_probe(
    wanted: str | None,
    *,
    run_dir: Path | None,
    tokenizer: Any,
    longest: int | None,
    blocks: int | None,
    length: int | None,
    seed: int,
    begin: BeginToken = "auto",
    model_type: str = "",
    **data: Any,
) -> Probe:
    """The probe that `--probe` names; held-out blocks for a run, built-in text for any other model if it names none.

    Args:
        wanted: `--probe`.
        run_dir: of the run that the model is from.
        tokenizer: the model's, or None.
        longest: positions of the model, in tokens, where they end.
        blocks: how many.
        length: T; the run's, or up to `LENGTH`, if None.
        seed: draws the blocks.
        begin: `--begin-token`, for text; `auto` is what the model's run has, where it has one.
        model_type: of the model's config.
        **data: more settings of `DataConfig` for text.
    """
    if blocks is not None and blocks < 1:
        raise ConfigError(f"--blocks {blocks}: must be at least 1")
    if length is not None and length < 2:
        raise ConfigError(f"--block-length {length}: must be at least 2, so that a token is predicted")
    if wanted is None and run_dir is not None:
        _refuse_begin(begin, "the held-out blocks of a run are what it was trained with (--data.begin-token)")
        return of_run(run_dir, blocks=blocks, length=length, seed=seed)
    length = length or min(LENGTH, longest or LENGTH)
    path = Path(wanted or "")
    is_record = path.suffix == ".json" and path.with_suffix(".safetensors").is_file()
    if path.suffix in (".npy", ".npz", ".safetensors") or is_record:
        _refuse_begin(begin, f"the tokens of {path} are taken as they are")
        return of_file(path, blocks=blocks, length=length, seed=seed)
    if begin == "auto" and run_dir is not None and (run_dir / CONFIG).is_file():
        begin = load_settings(run_dir / CONFIG).data.begin_token
    return of_text(
        wanted or "builtin",
        tokenizer,
        blocks=blocks,
        length=length,
        seed=seed,
        begin=begin,
        model_type=model_type,
        **data,
    )


def _refuse_begin(begin: BeginToken, reason: str) -> None:
    if begin != "auto":
        raise RunError(f"--begin-token {begin}: {reason}; leave the flag out, or name text with --probe")
