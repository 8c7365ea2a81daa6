"""One part of a streamed data set as an endless, numbered sequence of blocks, which can go on from a saved position."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from lab.data.documents import Document, Skipped
from lab.data.encoder import Encoder
from lab.data.errors import DataError
from lab.data.hub import record_document

if TYPE_CHECKING:
    import datasets

GROUP_RECORDS = 32
"""Records read and encoded together; those of a group are read again when a reader goes on within it."""


class Position(TypedDict):
    """Where a window of blocks begins: `skip` tokens after a place in the data set, `source` of pass `epoch`."""

    window: int
    epoch: int
    source: dict[str, Any] | None
    """The data set's own state; None is its beginning."""
    skip: int


BEGINNING: Position = {"window": 0, "epoch": 0, "source": None, "skip": 0}


@dataclass(frozen=True)
class Reading:
    """What decides the blocks of every reader, and nothing else does.

    Args:
        stream: the data set; reader v has its files v, v + readers, v + 2 readers, ...
        readers: V, at most the number of files.
        field: field of a record that holds the text.
        keep: whether a document is trained on (others are held out).
        block_length: T, in tokens.
        window: consecutive blocks of a reader that are shuffled together.
        seed: decides the order of a reader's files in each pass, and of the blocks in each window.
    """

    stream: datasets.IterableDataset
    readers: int
    field: str
    keep: Callable[[Document], bool]
    encoder: Encoder
    block_length: int
    window: int
    seed: int


class Reader:
    """Reader `number`: its blocks 0, 1, 2, ..., whose numbers asked for may not fall below the window of the last."""

    def __init__(self, reading: Reading, number: int, position: Position) -> None:
        self._reading, self._number = reading, number
        self._windows = self._read_windows(position)
        self.position = position
        """Where the window of the last block begins: a reader made with it gives that block too."""
        self._blocks: np.ndarray | None = None

    def block(self, index: int) -> np.ndarray:
        """Block `index`, (T + 1,) int64.

        Raises:
            DataError: no document to train on in this part.
        """
        window, offset = divmod(index, self._reading.window)
        while self._blocks is None or self.position["window"] < window:
            self.position, self._blocks = next(self._windows)
        assert self.position["window"] == window
        return self._blocks[offset]

    def _read_windows(self, start: Position) -> Iterator[tuple[Position, np.ndarray]]:
        """Where each window begins, and its blocks, (window, T + 1), in their order."""
        reading = self._reading
        length = reading.window * reading.block_length  # a block's last token is the next one's first
        at = np.arange(reading.window)[:, None] * reading.block_length + np.arange(reading.block_length + 1)
        groups = self._read_groups(start["epoch"], start["source"])
        held: list[tuple[int, dict[str, Any] | None, np.ndarray]] = []
        skip = start["skip"]
        for number in itertools.count(start["window"]):
            while sum(len(tokens) for *_, tokens in held) < skip + length + 1:
                held.append(next(groups))
            epoch, source, _ = held[0]
            tokens = np.concatenate([tokens for *_, tokens in held])[skip:]
            seeds = np.random.SeedSequence([reading.seed, self._number, number])
            order = np.random.Generator(np.random.PCG64(seeds)).permutation(reading.window)
            yield Position(window=number, epoch=epoch, source=source, skip=skip), tokens[at][order]
            skip += length
            while skip >= len(held[0][2]):
                skip -= len(held.pop(0)[2])

    def _read_groups(
        self, epoch: int, source: dict[str, Any] | None
    ) -> Iterator[tuple[int, dict[str, Any] | None, np.ndarray]]:
        """The tokens of each group of records from a place on, pass after pass, with the place before the group."""
        reading = self._reading
        while True:
            part = reading.stream.shard(reading.readers, self._number, contiguous=False)
            # The data set shuffles its files by the number of the epoch; this makes it depend on the seed too.
            part.set_epoch(int(np.random.SeedSequence([reading.seed, epoch]).generate_state(1)[0]))
            if source is not None:
                part.load_state_dict(source)
            is_whole, found = source is None, False
            # Unlike plain iteration, this does not divide the files between loader processes once more.
            for records in part.iter(batch_size=GROUP_RECORDS):
                if texts := self._texts(records):
                    found = True
                    yield epoch, source, np.concatenate(reading.encoder.encode(texts))
                source = part.state_dict()
            if is_whole and not found:
                raise DataError(
                    f"--data.source: reader {self._number} of {reading.readers} found no document to train on in its "
                    "part of the data set; use fewer --data.readers, or check --data.field"
                )
            epoch, source = epoch + 1, None

    def _texts(self, records: dict[str, list[Any]]) -> list[str]:
        skipped = Skipped()  # counted where the held-out documents are read; here they are only left out
        columns = zip(*records.values(), strict=True)
        documents = (
            record_document(dict(zip(records, values, strict=True)), self._reading.field, skipped) for values in columns
        )
        return [document.text for document in documents if document is not None and self._reading.keep(document)]
