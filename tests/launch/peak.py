"""For test_memory.py: train, and write down the most bytes that a rank held until its last step, from its model on.

Counted in libc by allocations.c. PyTorch's profiler sees no free that a thread of gloo makes, and counts such a tensor
until the end; resident memory leaves out what was allocated and not touched, which a GPU gives away all the same.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import Any

from torch import Tensor, distributed

from lab.config.read import parse
from lab.training import run
from lab.training.loop import Trainer


def main(out: str, *flags: str) -> None:
    counter = ctypes.CDLL(None)  # preloaded
    counter.held_bytes.restype = counter.most_bytes.restype = ctypes.c_long
    load, advance = run._load_model, Trainer.advance
    before = 0

    def from_here(*words: Any) -> Any:
        nonlocal before
        before = counter.held_bytes()
        return load(*words)

    def measured(self: Trainer) -> Any:
        result = advance(self)
        if os.environ.get("RANK", "0") == "0":
            Path(out).write_text(str(counter.most_bytes() - before))
        return result

    def in_place(output: Tensor, given: Tensor, *words: Any, group: Any = None, **others: Any) -> Any:
        """Gloo reduces and scatters a copy of what it is given, where NCCL needs none."""
        done = all_reduce(given, group=group)
        output.copy_(given.chunk(distributed.get_world_size(group))[distributed.get_rank(group)])
        return done

    all_reduce = distributed.all_reduce
    distributed.reduce_scatter_tensor = in_place
    run._load_model, Trainer.advance = from_here, measured  # type: ignore[method-assign]
    run.pretrain(parse(flags, prog="test"))


if __name__ == "__main__":
    main(*sys.argv[1:])
