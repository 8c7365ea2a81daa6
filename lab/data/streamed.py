"""Sources that are tokenised on the fly: a stream per rank and loader process, resumable to the exact token.

A stream's tokens are packed, and every `shuffle_buffer` consecutive blocks are a window that is permuted as a
whole. A position is where the window began (the data set's own state, the tokens left over from before) and
the number of blocks taken from it: resuming reads the same window again. The data set library's shuffle
buffer would lose its contents.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from datasets.distributed import split_dataset_by_node
from torch.utils.data import IterableDataset, get_worker_info
from torchdata.stateful_dataloader import StatefulDataLoader

from lab.data.documents import Document, Skipped
from lab.data.encoder import Encoder
from lab.data.errors import DataError
from lab.data.hub import record_document
from lab.data.loading import Batches, check_state, quiet_fork
from lab.data.packing import Batch, make_batch

if TYPE_CHECKING:
    import datasets

GROUP_DOCUMENTS = 32
"""Documents encoded together; their tokens may be part of a saved position, so not more."""


class StreamedBlocks(IterableDataset[np.ndarray]):
    """Endless blocks, (T + 1,) int64, of one rank's part of a stream; loader processes divide it again.

    Args:
        stream: the whole data set, the same on every rank.
        keep: whether a document is trained on (others are held out).
        vocab_size: entries of the model's vocabulary, if ids must be checked against it.
    """

    def __init__(
        self,
        stream: datasets.IterableDataset,
        *,
        field: str,
        keep: Callable[[Document], bool],
        encoder: Encoder,
        block_length: int,
        shuffle_buffer: int,
        seed: int,
        rank: int,
        world_size: int,
        vocab_size: int | None,
    ) -> None:
        self._whole = stream
        self._field = field
        self._keep = keep
        self._encoder = encoder
        self._block_length = block_length
        self._shuffle_buffer = shuffle_buffer
        self._seed = seed
        self._rank = rank
        self._world_size = world_size
        self._vocab_size = vocab_size
        self._window: dict[str, Any] = {"number": 0, "epoch": 0, "source": None, "carry": []}
        self._taken = 0

    def state_dict(self) -> dict[str, Any]:
        """Where the current window began, and the blocks taken from it."""
        return {"window": self._window, "taken": self._taken}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state` at the next `iter`."""
        self._window = state["window"]
        self._taken = state["taken"]

    def __iter__(self) -> Iterator[np.ndarray]:
        info = get_worker_info()
        worker = 0 if info is None else info.id
        # Divided here, in the loader process: the copy that came with the fork shares its epoch with the
        # other processes.
        self._part = split_dataset_by_node(self._whole, self._rank, self._world_size)
        self._epoch = self._window["epoch"]
        self._source = self._window["source"]
        tokens = self._tokens()
        carry = np.array(self._window["carry"], dtype=np.int64)
        for number in range(self._window["number"], 2**63):
            if number != self._window["number"]:
                self._window = {
                    "number": number,
                    "epoch": self._epoch,
                    "source": self._source,
                    "carry": carry.tolist(),
                }
                self._taken = 0
            blocks, carry = self._fill(carry, tokens)
            seed = np.random.SeedSequence([self._seed, self._rank, worker, number])
            order = np.random.Generator(np.random.PCG64(seed)).permutation(len(blocks))
            while self._taken < len(blocks):
                self._taken += 1
                yield blocks[order[self._taken - 1]]

    def _fill(self, carry: np.ndarray, tokens: Iterator[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """The blocks of one window, (shuffle_buffer, T + 1), and the tokens after it."""
        step = self._block_length
        used = self._shuffle_buffer * step
        pieces, length = [carry], len(carry)
        while length < used + 1:
            pieces.append(next(tokens))
            length += len(pieces[-1])
        flat = np.concatenate(pieces)
        at = np.arange(self._shuffle_buffer)[:, None] * step + np.arange(step + 1)
        return flat[at], flat[used:]

    def _tokens(self) -> Iterator[np.ndarray]:
        """Tokens of the kept documents from `_epoch` and `_source` on, in groups; moves those two along."""
        while True:
            # The data set shuffles its files by the number of the epoch; this makes it depend on the seed
            # too.
            order = np.random.SeedSequence([self._seed, self._epoch]).generate_state(1)[0]
            self._part.set_epoch(int(order))
            whole_epoch = self._source is None
            if self._source is not None:
                self._part.load_state_dict(deepcopy(self._source))  # it may write into what it is given
            empty = True
            for texts in self._groups():
                empty = False
                # Asked of the data set only now: before its first record it does not know where it stands.
                self._source = self._part.state_dict()
                yield self._encode(texts)
            if empty and whole_epoch:
                raise DataError(
                    f"--data.source: rank {self._rank} of {self._world_size} found no document to train on "
                    "in its part of the data set; use fewer processes, --data.workers 0, or check "
                    "--data.field"
                )
            self._epoch += 1
            self._source = None

    def _groups(self) -> Iterator[list[str]]:
        skipped = Skipped()  # counted where the held-out documents are read; here the loader only leaves them out
        texts: list[str] = []
        for record in self._part:
            document = record_document(record, self._field, skipped)
            if document is not None and self._keep(document):
                texts.append(document.text)
            if len(texts) == GROUP_DOCUMENTS:
                yield texts
                texts = []
        if texts:
            yield texts

    def _encode(self, texts: list[str]) -> np.ndarray:
        tokens = np.concatenate(self._encoder.encode(texts))
        if self._vocab_size is not None and tokens.max() >= self._vocab_size:
            raise DataError(
                f"token id {tokens.max()} does not fit the model's vocabulary of {self._vocab_size}: choose "
                "the --data.tokenizer that belongs to the model, or a model with a larger vocabulary"
            )
        return tokens


class StreamedBatches(Batches):
    """Endless micro-batches of one rank of a streamed data set.

    Raises:
        DataError: a loader process would have no file to read, or `state` belongs to another run or layout.
    """

    def __init__(
        self,
        blocks: StreamedBlocks,
        *,
        identity: dict[str, Any],
        isolate: bool,
        end: int,
        micro_batch: int,
        workers: int,
        state: dict[str, Any] | None,
    ) -> None:
        self._identity = {"kind": "streamed", **identity, "micro_batch": micro_batch, "workers": workers}
        self._workers = workers
        with warnings.catch_warnings():
            # torchdata 0.11 still calls this; nothing that our users could change.
            warnings.filterwarnings("ignore", message="'set_vital' is deprecated")
            self._loader = StatefulDataLoader(
                blocks,
                batch_size=micro_batch,
                num_workers=workers,
                collate_fn=partial(_collate, end=end, isolate=isolate),
                # Its own generator, or the loader would draw from (and so shift) the model's random numbers.
                generator=torch.Generator(),
            )
        if state is not None:
            check_state(state, self._identity)
            self._loader.load_state_dict(state["loader"])
        self._iterator: Iterator[Batch] | None = None

    def __next__(self) -> Batch:
        if self._iterator is None:
            with quiet_fork(self._workers):
                self._iterator = iter(self._loader)
        return next(self._iterator)

    def state_dict(self) -> dict[str, Any]:
        """The position after the batches taken so far; good for the same rank, processes and workers only."""
        with quiet_fork(self._workers if self._iterator is None else 0):
            return {**self._identity, "loader": self._loader.state_dict()}


def _collate(blocks: list[np.ndarray], *, end: int, isolate: bool) -> Batch:
    return make_batch(np.stack(blocks), end=end, isolate=isolate)
