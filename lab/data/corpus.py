"""From the settings to everything that training and evaluation read: the `Corpus`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from lab.data.begin import begin_token
from lab.data.cache import content_key
from lab.data.config import DataConfig
from lab.data.documents import Document, in_share
from lab.data.encoder import Encoder
from lab.data.errors import DataError
from lab.data.heldout import heldout_share, read_heldout
from lab.data.hub import HubSource
from lab.data.indexed import IndexedBatches, tokenize
from lab.data.loading import Batches
from lab.data.local import LocalSource
from lab.data.packing import Blocks
from lab.data.sources import resolve_source
from lab.data.token_file import TokenCounts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


EVALUATED = 256
"""Held-out blocks that are evaluated on if nothing else is said."""


class _MakeBatches(Protocol):
    def __call__(
        self,
        *,
        rank: int,
        world_size: int,
        micro_batch: int,
        start_sequences: int,
        states: Sequence[dict[str, Any]],
        tokens: int | None,
    ) -> Batches: ...


@dataclass
class Corpus:
    """Tokenised text, split into a training and a held-out side."""

    heldout: Blocks
    """Held-out blocks, the same on every rank."""
    heldout_bytes: np.ndarray
    """UTF-8 bytes of the text that each held-out token stands for, (n,) as `heldout.tokens`."""
    max_token_id: int
    """Largest id that is read: of both sides on disk of an indexed source, of any text for a streamed one."""
    _counts: dict[str, Any]
    _make_batches: _MakeBatches
    _more_heldout: str

    def summary(self) -> dict[str, Any]:
        """Counts for people and for the run folder; None is what a streamed source does not know."""
        return dict(self._counts)

    def check_vocabulary(self, vocab_size: int) -> None:
        """Check that every token id is below the model's `vocab_size`.

        Raises:
            DataError: an id does not fit.
        """
        if self.max_token_id >= vocab_size:
            raise DataError(
                f"token id {self.max_token_id} does not fit the model's vocabulary of {vocab_size}: the "
                f"tokenizer {self._counts['tokenizer']} has {self._counts['vocabulary']} entries. Choose the "
                "--data.tokenizer that belongs to the model, or a model with a larger vocabulary"
            )

    def evaluated_blocks(self, asked: int | Literal["all"] | None) -> int:
        """How many held-out blocks `--eval.blocks` means; None is `EVALUATED`, or all where there are fewer.

        Raises:
            DataError: there are fewer than asked for.
        """
        there = len(self.heldout)
        if asked is None or asked == "all":
            return there if asked else min(EVALUATED, there)
        if asked > there:
            raise DataError(
                f"--eval.blocks {asked}: there are {there} held-out blocks. Evaluate on --eval.blocks {there} or all, "
                f"or {self._more_heldout}"
            )
        return asked

    def heldout_documents(self, blocks: int) -> np.ndarray:
        """The document, from 0, that each token of the first held-out blocks belongs to, its end token included."""
        tokens = self.heldout.tokens[: blocks * self.heldout.block_length + 1]
        return np.concatenate([[0], np.cumsum(tokens[:-1] == self.heldout.end)])

    def batches(
        self,
        *,
        rank: int,
        world_size: int,
        micro_batch: int,
        start_sequences: int = 0,
        states: Sequence[dict[str, Any]] = (),
        tokens: int | None = None,
    ) -> Batches:
        """Endless micro-batches of one rank, `micro_batch` sequences each.

        Args:
            rank: 0 to `world_size` - 1.
            world_size: number of processes that train together.
            micro_batch: sequences a rank takes at a time.
            start_sequences: sequences consumed so far by all ranks. It is all that an indexed source needs to
                continue; a streamed source needs `states`.
            states: what the `state_dict()` of every rank gave, however many there were; empty at the beginning.
            tokens: what is left of the run's budget, in tokens (sequences x block length), past which targets are
                ignored; None is no end.

        Raises:
            DataError: `states` belong to other data or settings, or are not those of all ranks.
        """
        return self._make_batches(
            rank=rank,
            world_size=world_size,
            micro_batch=micro_batch,
            start_sequences=start_sequences,
            states=states,
            tokens=tokens,
        )


def prepare(config: DataConfig, tokenizer: PreTrainedTokenizerFast, *, seed: int, progress: bool) -> Corpus:
    """Tokenise the source (or find it in the cache), or open the stream and tokenise its held-out documents.

    Every rank calls this; whichever comes first does the work and the others wait for it.

    Args:
        config: the `--data.*` settings.
        tokenizer: from `load_tokenizer`.
        seed: decides the order of training sequences, 0 or more; the split does not depend on it.
        progress: whether to draw progress bars on standard error.

    Raises:
        DataError: the source cannot be used; the message says why and what to do.
    """
    source = resolve_source(config)
    encoder = Encoder.of(tokenizer, begin_token(tokenizer, config.begin_token, flag="--data.begin-token"))
    about = {
        "source": " ".join(config.source),
        "tokenizer": tokenizer.name_or_path,
        "tokenizer_digest": encoder.digest,
        "vocabulary": encoder.vocabulary,
        "begin_token": encoder.begin,
        "block_length": config.block_length,
    }
    if isinstance(source, LocalSource):
        return _indexed(config, source, encoder, about=about, seed=seed, progress=progress)
    return _streamed(config, source, encoder, about=about, seed=seed, progress=progress)


def _indexed(
    config: DataConfig,
    source: LocalSource,
    encoder: Encoder,
    *,
    about: dict[str, Any],
    seed: int,
    progress: bool,
) -> Corpus:
    files = tokenize(config, source, encoder, progress=progress)
    make_blocks: Callable[..., Blocks] = partial(
        Blocks, block_length=config.block_length, end=encoder.end, isolate=config.isolate_documents
    )
    train, heldout = make_blocks(files.train_path), make_blocks(files.heldout_path)

    def make_batches(**position: Any) -> Batches:
        return IndexedBatches(train, data_key=files.key, seed=seed, workers=config.workers, **position)

    counts = {
        "kind": "indexed",
        **about,
        "data_digest": files.key,
        "documents": files.train.documents + files.heldout.documents,
        "train_documents": files.train.documents,
        "train_tokens": files.train.tokens,
        "train_blocks": len(train),
        **_heldout_counts(files.heldout, heldout),
        "longest_document_tokens": max(files.train.longest_document, files.heldout.longest_document),
        "skipped": files.skipped,
        "first_skipped": files.first_skipped,
    }
    return Corpus(
        heldout=heldout,
        heldout_bytes=np.load(files.heldout_bytes_path, mmap_mode="r"),
        max_token_id=max(files.train.max_token_id, files.heldout.max_token_id),
        _counts=counts,
        _make_batches=make_batches,
        _more_heldout=f"give more text, or a larger --data.heldout-fraction (now {config.heldout_fraction:g})",
    )


def _streamed(
    config: DataConfig,
    source: HubSource,
    encoder: Encoder,
    *,
    about: dict[str, Any],
    seed: int,
    progress: bool,
) -> Corpus:
    from lab.data.reader import Reading
    from lab.data.streamed import StreamedBatches

    stream = source.stream(config.split, progress=progress)
    if stream.num_shards < config.readers:
        stream = stream.reshard()  # a Parquet file's row groups are files of their own then
    path, bytes_path, held, skipped = read_heldout(config, source, encoder, progress=progress)
    heldout = Blocks(path, block_length=config.block_length, end=encoder.end, isolate=config.isolate_documents)
    share = heldout_share(config)
    data_key = content_key(source=source.fingerprint(progress=progress), heldout_share=share, tokenizer=encoder.digest)

    readers = min(config.readers, stream.num_shards)

    def make_batches(**position: Any) -> Batches:
        reading = Reading(
            stream=stream,
            readers=readers,
            field=config.field,
            keep=partial(_trained_on, share=share),
            encoder=encoder,
            block_length=config.block_length,
            window=-(-config.shuffle_buffer // readers),
            seed=seed,
        )
        identity = {
            "data": data_key,
            "seed": seed,
            "block_length": config.block_length,
            "isolate_documents": config.isolate_documents,
            "shuffle_buffer": config.shuffle_buffer,
        }
        return StreamedBatches(
            reading, identity=identity, isolate=config.isolate_documents, workers=config.workers, **position
        )

    counts = {
        "kind": "streamed",
        **about,
        "data_digest": data_key,
        "revision": source.revision(progress=progress),
        "documents": None,
        "train_documents": None,
        "train_tokens": None,
        "train_blocks": None,
        "readers": readers,
        **_heldout_counts(held, heldout),
        "longest_document_tokens": held.longest_document,
        "skipped": skipped,
    }
    return Corpus(
        heldout=heldout,
        heldout_bytes=np.load(bytes_path, mmap_mode="r"),
        max_token_id=encoder.max_text_id,
        _counts=counts,
        _make_batches=make_batches,
        _more_heldout=f"raise --data.heldout-blocks (now {config.heldout_blocks})"
        if len(heldout) >= config.heldout_blocks
        else "hold out more: --data.heldout-split, or a larger --data.heldout-fraction",
    )


def _heldout_counts(counts: TokenCounts, blocks: Blocks) -> dict[str, int]:
    return {
        "heldout_documents": counts.documents,
        "heldout_tokens": counts.tokens,
        "heldout_bytes": counts.bytes,
        "heldout_blocks": len(blocks),
    }


def _trained_on(document: Document, *, share: float) -> bool:
    return not in_share(document, share)
