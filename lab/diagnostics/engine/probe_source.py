"""Where the probe comes from: a run's held-out blocks, any text, saved token ids, or the probe of a record."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from lab.data.config import DataConfig
from lab.data.corpus import prepare
from lab.data.documents import Skipped
from lab.data.encoder import Encoder
from lab.data.local import LocalSource
from lab.data.packing import Blocks
from lab.data.sources import resolve_source
from lab.data.token_file import encode_documents
from lab.diagnostics.engine.probe import Probe
from lab.diagnostics.record import load
from lab.errors import RunError

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

    from lab.config.read import load as load_settings
    from lab.runfolder.folder import CONFIG, TOKENIZER

    run = load_settings(run_dir / CONFIG)
    if not (run_dir / TOKENIZER).is_dir():
        raise RunError(f"{run_dir} has no {TOKENIZER}/, so its held-out text cannot be read; give a --probe")
    tokenizer = AutoTokenizer.from_pretrained(run_dir / TOKENIZER)
    heldout = prepare(run.data, tokenizer, seed=run.train.seed, progress=False).heldout
    if length is not None:
        heldout = Blocks(heldout.tokens, block_length=length, end=heldout.end, isolate=heldout.isolate)
    return of_blocks(heldout, blocks, seed=seed, source=f"held-out blocks of {' '.join(run.data.source)}")


def of_text(name: str, tokenizer: Any, *, blocks: int | None, length: int, seed: int, **data: Any) -> Probe:
    """Blocks of any text that `--data.source` takes: documents joined with the end token.

    Args:
        name: file, folder, glob, `builtin` or hub name.
        tokenizer: the model's.
        blocks: how many; about `TOKENS` tokens if None.
        length: T.
        seed: draws the blocks.
        **data: more settings of `DataConfig`, such as `field`.

    Raises:
        UserError: no such text, or a model without a tokenizer.
    """
    if tokenizer is None:
        raise RunError(
            f"--probe {name}: the model comes without a tokenizer, so text cannot be read; give token ids, an array "
            "(blocks, tokens) in a .npy file"
        )
    encoder = Encoder.of(tokenizer)
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
    return of_blocks(stream, blocks, seed=seed, source=name)


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
        **data: more settings of `DataConfig` for text.
    """
    if blocks is not None and blocks < 1:
        raise RunError(f"--blocks {blocks}: must be at least 1")
    if length is not None and length < 2:
        raise RunError(f"--block-length {length}: must be at least 2, so that a token is predicted")
    if wanted is None and run_dir is not None:
        return of_run(run_dir, blocks=blocks, length=length, seed=seed)
    length = length or min(LENGTH, longest or LENGTH)
    if wanted is not None and Path(wanted).suffix in (".npy", ".npz", ".safetensors"):
        return of_file(Path(wanted), blocks=blocks, length=length, seed=seed)
    if wanted is not None and Path(wanted).suffix == ".json" and Path(wanted).with_suffix(".safetensors").is_file():
        return of_file(Path(wanted), blocks=blocks, length=length, seed=seed)
    return of_text(wanted or "builtin", tokenizer, blocks=blocks, length=length, seed=seed, **data)
