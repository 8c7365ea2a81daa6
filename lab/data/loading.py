"""What both kinds of training batches have in common."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from lab.data.errors import DataError
from lab.data.packing import IGNORED, Batch

FLAGS = {
    "kind": "--data.source",
    "data": "--data.source or --data.tokenizer",
    "seed": "--train.seed",
    "block_length": "--data.block-length",
    "isolate_documents": "--data.isolate-documents",
    "shuffle_buffer": "--data.shuffle-buffer",
    "readers": "--data.readers (or the number of files)",
}
"""What a user changes to make an entry of a saved position agree."""


class Batches(Iterator[Batch]):
    """An endless iterator over one rank's micro-batches; epochs follow one another without a mark."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """The position after the batches taken so far: plain numbers, strings, lists and dicts."""

    @property
    @abstractmethod
    def epoch(self) -> float:
        """How many passes over the training data the batches taken so far are."""


def check_states(states: Sequence[Mapping[str, Any]], expected: Mapping[str, Any], start_sequences: int) -> int:
    """Check that the saved positions of all ranks are one, and belong to the data of this run.

    Args:
        states: what every rank's `state_dict()` gave; empty at the beginning.
        expected: entries that may not differ.
        start_sequences: sequences consumed as the run knows it, or 0.

    Returns:
        Sequences consumed so far by all ranks.

    Raises:
        DataError: an entry of `expected` differs, naming the flag and both values, or the positions are several.
    """
    for state in states:
        for name, value in expected.items():
            saved = state.get(name)
            if saved != value:
                raise DataError(
                    f"cannot continue at the saved position in the data: {FLAGS[name]} was {saved!r} when it was "
                    f"saved and is {value!r} now. Resume with the same setting, or start a new run"
                )
    sequences = {state["sequences"] for state in states if "sequences" in state}
    if start_sequences:
        sequences.add(start_sequences)
    if len(sequences) > 1:
        raise DataError(
            f"the saved positions in the data do not belong together: they are {sorted(sequences)} sequences from the "
            "beginning"
        )
    return sequences.pop() if sequences else 0


def within_budget(batch: Batch, numbers: np.ndarray, end: int | None) -> Batch:
    """Ignore the targets past a budget: sequence p has the tokens p T to p T + T - 1 of all sequences in a row.

    Args:
        batch: whose targets are changed in place.
        numbers: (B,) the sequences in it.
        end: the first token past the budget; None is no end.
    """
    if end is not None:
        targets = batch["targets"]
        left = torch.from_numpy(end - numbers * targets.shape[1])
        targets[torch.arange(targets.shape[1]) >= left[:, None]] = IGNORED
    return batch


@contextmanager
def quiet_fork(workers: int) -> Iterator[None]:
    """Fork loader processes in here.

    `tokenizers` warns, and turns its threads off, in a process forked after they ran. Turning them off
    beforehand says that this is meant; the parent has them back afterwards.
    """
    name = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(name)
    if workers == 0 or before is not None:
        yield
        return
    os.environ[name] = "false"
    try:
        yield
    finally:
        del os.environ[name]
