from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from evaluators.benchmarks import Line, benchmark
from evaluators.benchmarks.jsonl import array_or_lines
from evaluators.errors import RunError

_OURS = {"query": "input", "response1": "output_1", "response2": "output_2", "human": "label"}


@benchmark("llmbar")
def llmbar(path: Path) -> Iterator[Line]:
    """A dataset.json of LLMBar (arXiv:2310.07641): an array with input, output_1, output_2, label (1 or 2, no ties)."""
    for number, found in array_or_lines(path):
        if isinstance(found, RunError):
            yield number, found
        elif missing := [theirs for theirs in _OURS.values() if theirs not in found]:
            yield number, RunError(f"has no field {missing[0]!r}, which LLMBar's samples have")
        else:
            named = {ours: found[theirs] for ours, theirs in _OURS.items()}
            yield number, {"id": f"llmbar-{number - 1:04d}", "dataset": "llmbar", **named}
