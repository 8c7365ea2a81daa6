"""What both kinds of training batches have in common."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lab.data.errors import DataError
from lab.data.packing import Batch

FLAGS = {
    "kind": "--data.source",
    "data": "--data.source or --data.tokenizer",
    "seed": "--train.seed",
    "block_length": "--data.block-length",
    "isolate_documents": "--data.isolate-documents",
    "shuffle_buffer": "--data.shuffle-buffer",
    "workers": "--data.workers",
    "micro_batch": "--train.micro-batch",
    "world_size": "number of processes",
    "rank": "rank",
}
"""What a user changes to make an entry of a saved position agree."""


class Batches(Iterator[Batch]):
    """An endless iterator over one rank's micro-batches; epochs follow one another without a mark."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """The position after the batches taken so far: plain numbers, strings, lists and dicts."""


def check_state(state: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Check that a saved position belongs to the data of this run.

    Raises:
        DataError: an entry of `expected` differs, naming the flag and both values.
    """
    for name, value in expected.items():
        saved = state.get(name)
        if saved != value:
            raise DataError(
                f"cannot continue at the saved position in the data: {FLAGS[name]} was {saved!r} when it was "
                f"saved and is {value!r} now. Resume with the same setting, or start a new run"
            )


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
