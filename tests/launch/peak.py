"""For test_memory.py: train, and write down the most bytes that this process's tensors held while it made steps.

What gloo allocates in threads of its own to send is not counted: between GPUs there is no gloo.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from torch._C._profiler import _EventType
from torch.profiler import ProfilerActivity, profile, record_function

from lab.config.read import parse
from lab.training.loop import Trainer
from lab.training.run import pretrain

STEP = "one optimizer step"


def main(out: str, *flags: str) -> None:
    advance = Trainer.advance

    def marked(self: Trainer) -> object:
        with record_function(STEP):
            return advance(self)

    Trainer.advance = marked  # type: ignore[method-assign, assignment]
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        pretrain(parse(flags, prog="test"))
    if os.environ.get("RANK", "0") != "0":
        return
    waiting, changes, steps = list(profiler.profiler.kineto_results.experimental_event_tree()), [], []
    while waiting:
        event = waiting.pop()
        waiting += event.children
        if event.tag == _EventType.Allocation:
            fields = event.extra_fields
            changes.append((event.start_time_ns, fields.ptr, fields.alloc_size, event.start_tid))
        elif event.name == STEP:
            steps.append(event)
    begin, end = min(step.start_time_ns for step in steps), max(step.end_time_ns for step in steps)
    alive: dict[int, int] = {}
    held = peak = 0
    at_peak: dict[int, int] = {}
    for moment, address, size, thread in sorted(changes):
        held -= alive.pop(address, 0)  # freed by a thread that is not seen, if it is given out again
        if size > 0 and thread == steps[0].start_tid:
            alive[address] = size
            held += size
        if begin <= moment <= end and held > peak:
            peak, at_peak = held, dict(alive)
    sizes = sorted(at_peak.values(), reverse=True)
    found = {size: sizes.count(size) for size in dict.fromkeys(sizes)}
    Path(out).write_text(json.dumps({"peak": peak, "at_peak": list(found.items())[:30]}))


if __name__ == "__main__":
    main(*sys.argv[1:])
