"""Sources that are tokenised once: every block can be reached by number, so the order is a formula.

The training sequences of a run are numbered 0, 1, 2, ... over all epochs and ranks. Sequence p is block
`permutation(seed, p // n)[p % n]` of n. A step takes consecutive sequences, whatever the number of ranks, so
the number of sequences consumed so far is the whole state.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from lab.data.cache import build_once, content_key
from lab.data.config import DataConfig
from lab.data.documents import Skipped, in_share
from lab.data.encoder import Encoder
from lab.data.errors import DataError
from lab.data.loading import Batches, check_states, quiet_fork, within_budget
from lab.data.local import LocalSource
from lab.data.packing import Batch, Blocks
from lab.data.progress import bar
from lab.data.token_file import TokenCounts, TokenWriter, encode_documents

FORMAT = 4
"""Version of the token files; raise it when the same key would give other contents."""


@dataclass(frozen=True)
class TokenFiles:
    """The token files of one source, tokenizer and split."""

    key: str
    train_path: Path
    heldout_path: Path
    heldout_bytes_path: Path
    train: TokenCounts
    heldout: TokenCounts
    skipped: dict[str, int]
    first_skipped: dict[str, str]


def tokenize(config: DataConfig, source: LocalSource, encoder: Encoder, *, progress: bool) -> TokenFiles:
    """Tokenise a source, or find it in the cache.

    Raises:
        DataError: no usable document, none on one of the sides, or too few tokens for one training block.
    """
    key = content_key(
        format=FORMAT,
        source=source.fingerprint(progress=progress),
        heldout_fraction=config.heldout_fraction,
        tokenizer=encoder.digest,
    )
    directory = config.cache_root / "tokens" / key

    def build(into: Path) -> dict[str, Any]:
        skipped = Skipped()
        with (
            TokenWriter(into / "train.npy", encoder) as train,
            TokenWriter(into / "heldout.npy", encoder, bytes_path=into / "heldout_bytes.npy") as heldout,
            bar("tokenizing", progress=progress, unit="B") as shown,
        ):
            for document, tokens in encode_documents(source.documents(skipped), encoder):
                side = heldout if in_share(document, config.heldout_fraction) else train
                side.append(document, tokens)
                shown.update(document.size)
        return {
            "train": asdict(train.counts),
            "heldout": asdict(heldout.counts),
            "skipped": dict(skipped),
            "first_skipped": skipped.first,
        }

    content = build_once(directory, build)
    files = TokenFiles(
        key=key,
        train_path=directory / "train.npy",
        heldout_path=directory / "heldout.npy",
        heldout_bytes_path=directory / "heldout_bytes.npy",
        train=TokenCounts(**content["train"]),
        heldout=TokenCounts(**content["heldout"]),
        skipped=content["skipped"],
        first_skipped=content["first_skipped"],
    )
    _check_sides(config, files)
    return files


def _check_sides(config: DataConfig, files: TokenFiles) -> None:
    name, fraction = " ".join(config.source), config.heldout_fraction
    total = files.train.documents + files.heldout.documents
    for side, counts, remedy in (
        ("held out for evaluation", files.heldout, "larger"),
        ("left to train on", files.train, "smaller"),
    ):
        if counts.documents == 0:
            raise DataError(
                f"--data.source {name}: none of its {total} document(s) is {side}. Use a {remedy} "
                f"--data.heldout-fraction (now {fraction}), more text, or smaller documents "
                "(--data.text-unit line)"
            )
    if files.train.tokens <= config.block_length:
        raise DataError(
            f"--data.source {name}: its {files.train.tokens} training tokens do not fill one block of "
            f"{config.block_length} (and the token after it); give more text or a smaller --data.block-length"
        )


class BlockOrder:
    """The block that each training sequence is, for `blocks` blocks shuffled anew in every epoch."""

    def __init__(self, blocks: int, seed: int) -> None:
        self.blocks = blocks
        self.seed = seed
        # A batch can reach into the next epoch, so two permutations are in use at a time.
        self._permutation = lru_cache(maxsize=2)(self._permute)

    def _permute(self, epoch: int) -> np.ndarray:
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([self.seed, epoch])))
        return generator.permutation(np.arange(self.blocks, dtype=np.uint32))

    def __call__(self, sequences: np.ndarray) -> np.ndarray:
        """Block numbers, int64, of sequence numbers (B,)."""
        epochs, offsets = np.divmod(sequences, self.blocks)
        result = np.empty(len(sequences), dtype=np.int64)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            result[here] = self._permutation(int(epoch))[offsets[here]]
        return result

    def __reduce__(self) -> tuple[type[BlockOrder], tuple[int, int]]:
        return type(self), (self.blocks, self.seed)


class _MicroBatches(Dataset[Batch]):
    """Micro-batch m of one rank."""

    def __init__(self, blocks: Blocks, order: BlockOrder, *, start: int, stride: int, size: int) -> None:
        self.blocks = blocks
        self.order = order
        self.start = start
        self.stride = stride
        self.size = size

    def __getitem__(self, number: int) -> Batch:
        first = self.start + number * self.stride
        return self.blocks.batch(self.order(np.arange(first, first + self.size)))


class IndexedBatches(Batches):
    """Endless micro-batches of one rank.

    Micro-batch m of rank r holds the `micro_batch` sequences from `start + (m·world_size + r)·micro_batch`.
    """

    def __init__(
        self,
        blocks: Blocks,
        *,
        data_key: str,
        seed: int,
        rank: int,
        world_size: int,
        micro_batch: int,
        start_sequences: int,
        states: Sequence[dict[str, Any]],
        tokens: int | None,
        workers: int,
    ) -> None:
        self._identity = {
            "kind": "indexed",
            "data": data_key,
            "seed": seed,
            "block_length": blocks.block_length,
            "isolate_documents": blocks.isolate,
        }
        self._sequences = check_states(states, self._identity, start_sequences)
        self._offsets = rank * micro_batch + np.arange(micro_batch)
        self._end_token = None if tokens is None else self._sequences * blocks.block_length + tokens
        self._blocks = len(blocks)
        self._stride = world_size * micro_batch
        self._workers = workers
        self._loader = DataLoader(
            _MicroBatches(
                blocks,
                BlockOrder(len(blocks), seed),
                start=self._sequences + rank * micro_batch,
                stride=self._stride,
                size=micro_batch,
            ),
            batch_size=None,
            sampler=itertools.count(),  # any iterable will do; this one has no end
            num_workers=workers,
            # Its own generator, or the loader would draw from (and so shift) the model's random numbers.
            generator=torch.Generator(),
        )
        self._iterator: Iterator[Batch] | None = None

    def __next__(self) -> Batch:
        if self._iterator is None:
            with quiet_fork(self._workers):
                self._iterator = iter(self._loader)
        numbers = self._sequences + self._offsets
        self._sequences += self._stride
        return within_budget(next(self._iterator), numbers, self._end_token)

    def state_dict(self) -> dict[str, Any]:
        """The position after the batches taken so far, the same on every rank; good for any layout."""
        return {**self._identity, "sequences": self._sequences}

    @property
    def epoch(self) -> float:
        """Sequences taken by all ranks, divided by the blocks that there are."""
        return self._sequences / self._blocks
