"""Sources that are tokenised on the fly, in an order that no number of processes, loaders or batches changes.

The training sequences of a run are numbered 0, 1, 2, ... over all ranks, as those of an indexed source are. A fixed
number V of readers have the files of the data set among them; sequence p is block p // V of reader p % V. Of W ranks
with K loader processes each, a loader takes every (W K)-th sequence, so where W K divides V it needs V / (W K) of the
readers, and every file is read by one loader alone.

A position is the number of sequences taken, and for each reader where the window of its last block begins.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from lab.data.errors import DataError
from lab.data.loading import Batches, check_states, quiet_fork, within_budget
from lab.data.packing import Batch, make_batch
from lab.data.reader import BEGINNING, Position, Reader, Reading

logger = logging.getLogger(__name__)

FORMAT = 2
"""Version of a saved position."""

Taken = tuple[np.ndarray, Position | None]
"""A block, and where its reader's window begins, unless that was told with an earlier block."""


class _Sequences(IterableDataset[list[Taken] | DataError]):
    """The sequences `first`, `first` + `stride`, ..., divided between loader processes, `chunk` of them at a time.

    What a user can mend comes as a value: the loader would wrap it in a traceback.
    """

    def __init__(self, reading: Reading, positions: dict[int, Position], *, first: int, stride: int, chunk: int):
        self._reading, self._positions = reading, positions
        self._first, self._stride, self._chunk = first, stride, chunk

    def __iter__(self) -> Iterator[list[Taken] | DataError]:
        info = get_worker_info()
        loader, loaders = (0, 1) if info is None else (info.id, info.num_workers)
        numbers = itertools.count(self._first + loader * self._stride, loaders * self._stride)
        readers: dict[int, Reader] = {}
        try:
            while True:
                yield [self._take(number, readers) for number in itertools.islice(numbers, self._chunk)]
        except (DataError, OSError) as error:
            yield DataError(str(error))

    def _take(self, number: int, readers: dict[int, Reader]) -> Taken:
        index, which = divmod(number, self._reading.readers)
        if which not in readers:
            readers[which] = Reader(self._reading, which, self._positions.get(which, BEGINNING))
        reader, before = readers[which], readers[which].position
        block = reader.block(index)
        return block, None if reader.position is before else reader.position


class StreamedBatches(Batches):
    """Endless micro-batches of one rank of a streamed data set: every `world_size`-th sequence.

    Raises:
        DataError: `states` belong to other data, or do not hold the place of every reader.
    """

    def __init__(
        self,
        reading: Reading,
        *,
        identity: dict[str, Any],
        isolate: bool,
        rank: int,
        world_size: int,
        micro_batch: int,
        start_sequences: int,
        states: Sequence[dict[str, Any]],
        tokens: int | None,
        workers: int,
    ) -> None:
        self._identity = {"kind": "streamed", **identity, "readers": reading.readers}
        _check_format(states)
        start = check_states(states, self._identity, start_sequences)
        self._positions = _joined(states)
        _check_places(self._positions, start, reading)
        if rank == 0:
            _tell_cost(reading, world_size=world_size, loaders=max(workers, 1))
        self._reading, self._isolate = reading, isolate
        self._end_token = None if tokens is None else start * reading.block_length + tokens
        self._workers, self._micro_batch = workers, micro_batch
        self._sequences, self._rank, self._world_size = start, rank, world_size
        self._loader = DataLoader(
            _Sequences(reading, dict(self._positions), first=start + rank, stride=world_size, chunk=micro_batch),
            batch_size=None,
            collate_fn=_as_it_is,  # the loader's own makes tensors, and opens a connection for each
            num_workers=workers,
            # Its own generator, or the loader would draw from (and so shift) the model's random numbers.
            generator=torch.Generator(),
        )
        self._taken: Iterator[Taken] | None = None

    def __next__(self) -> Batch:
        if self._taken is None:
            with quiet_fork(self._workers):
                self._taken = _in_order(iter(self._loader), max(self._workers, 1))
        blocks, positions = zip(*itertools.islice(self._taken, self._micro_batch), strict=True)
        numbers = self._sequences + self._rank + self._world_size * np.arange(self._micro_batch)
        for number, position in zip(numbers.tolist(), positions, strict=True):
            if position is not None:
                self._positions[number % self._reading.readers] = position
        self._sequences += self._world_size * self._micro_batch
        batch = make_batch(np.stack(blocks), end=self._reading.encoder.end, isolate=self._isolate)
        return within_budget(batch, numbers, self._end_token)

    def state_dict(self) -> dict[str, Any]:
        """This rank's part of the position after the batches taken so far.

        Those of all ranks together are good for any number of ranks, loader processes and micro-batch size.
        """
        positions = {str(reader): position for reader, position in self._positions.items()}
        return {**self._identity, "format": FORMAT, "sequences": self._sequences, "positions": positions}

    @property
    def epoch(self) -> float:
        """Whole passes that a reader of this rank has made over its part, on average; how long one is, is not known."""
        passes = [position["epoch"] for position in self._positions.values()]
        return sum(passes) / max(len(passes), 1)


def _as_it_is(chunk: list[Taken] | DataError) -> list[Taken] | DataError:
    return chunk


def _in_order(chunks: Iterator[list[Taken] | DataError], loaders: int) -> Iterator[Taken]:
    """The sequences one by one; chunks come from the loaders in turn, each with every `loaders`-th sequence."""
    while True:
        turn: list[list[Taken]] = []
        for chunk in itertools.islice(chunks, loaders):
            if isinstance(chunk, DataError):
                raise chunk
            turn.append(chunk)
        yield from itertools.chain.from_iterable(zip(*turn, strict=True))


def _check_format(states: Sequence[dict[str, Any]]) -> None:
    for state in states:
        if state["kind"] == "streamed" and state.get("format") != FORMAT:
            raise DataError(
                "cannot continue at the saved position in the data: it was written by another version of depthlab "
                f"(format {state.get('format', 1)}; this one reads {FORMAT}). Go on with that version, or start a "
                "new run"
            )


def _joined(states: Sequence[dict[str, Any]]) -> dict[int, Position]:
    """The furthest place of each reader that any rank knows of."""
    joined: dict[int, Position] = {}
    for state in states:
        for name, position in state["positions"].items():
            if int(name) not in joined or joined[int(name)]["window"] < position["window"]:
                joined[int(name)] = position
    return joined


def _check_places(positions: dict[int, Position], sequences: int, reading: Reading) -> None:
    missing = [reader for reader in range(min(sequences, reading.readers)) if reader not in positions]
    if missing:
        raise DataError(
            f"cannot continue a streamed data set after {sequences} sequences: the places of readers {missing} in it "
            "are not in the saved position. It takes those of all ranks"
        )


def _tell_cost(reading: Reading, *, world_size: int, loaders: int) -> None:
    """Warn where several loaders read the same files: W K of them need V / gcd(V, W K) of the V readers each."""
    parts, readers = world_size * loaders, reading.readers
    times = parts // math.gcd(parts, readers)
    if times == 1:
        return
    files = reading.stream.num_shards
    remedy = (
        f"--data.readers with a multiple of {parts} in a new run, or other --data.workers"
        if parts <= files
        else f"more and smaller files than its {files}, or local ones, which are tokenised once"
    )
    logger.warning(
        "the data set is read and tokenised %d times over: %d process%s x %d loader%s do not divide its %d readers "
        "evenly. Better: %s",
        *(times, world_size, "es" * (world_size > 1), loaders, "s" * (loaders > 1), readers, remedy),
    )
