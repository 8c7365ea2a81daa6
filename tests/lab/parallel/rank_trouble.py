"""`lab/pretrain.py` with trouble on one rank: `accelerate launch rank_trouble.py TROUBLE RUN FLAGS`."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from lab import pretrain
from lab.data.indexed import IndexedBatches
from lab.training import run

RANK = os.environ["RANK"]


def main(trouble: str, flags: list[str]) -> int:
    if trouble == "unreadable source" and RANK == "1":
        # Rank 0 hands out the settings, but each rank reads the data from its own machine.
        prepare = run.prepare
        run.prepare = lambda data, *given, **more: prepare(
            replace(data, source=("/nowhere/text.jsonl",)), *given, **more
        )
    if trouble == "read error" and RANK == "1":
        read, batches = IndexedBatches.__next__, iter(range(5))

        def broken(self):
            if next(batches, None) is None:
                raise OSError(5, "Input/output error")
            return read(self)

        IndexedBatches.__next__ = broken
    if trouble.startswith("late rank") and trouble.endswith(RANK):
        time.sleep(4)
    return pretrain.main(flags)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
