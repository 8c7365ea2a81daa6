from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from evaluators.benchmarks import Line, benchmark
from evaluators.benchmarks.jsonl import array_or_lines
from evaluators.errors import RunError
from evaluators.samples import label

_ANNOTATORS = ("annotator1", "annotator2", "annotator3")


@benchmark("pandalm")
def pandalm(path: Path) -> Iterator[Line]:
    """PandaLM's testset-v1.json (arXiv:2306.05087): what most of its three annotators say; no label if all differ."""
    for number, found in array_or_lines(path):
        yield number, found if isinstance(found, RunError) else _named(number, found)


def _named(number: int, found: Mapping[str, Any]) -> Mapping[str, Any] | RunError:
    needed = ("instruction", "response1", "response2", *_ANNOTATORS)
    if missing := [name for name in needed if name not in found]:
        return RunError(f"has no field {missing[0]!r}, which PandaLM's samples have")
    try:
        votes = Counter(label(found[name]) for name in _ANNOTATORS)
    except RunError as error:
        return error
    said, count = votes.most_common(1)[0]
    return {
        "id": f"pandalm-{number - 1:04d}",
        "query": "\n\n".join(filter(None, (str(found["instruction"]), str(found.get("input") or "")))),
        "response1": found["response1"],
        "response2": found["response2"],
        "human": said if count > 1 else None,
        "dataset": "pandalm",
    }
