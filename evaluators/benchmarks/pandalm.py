from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from evaluators.benchmarks import Line, benchmark
from evaluators.benchmarks.jsonl import array_or_lines
from evaluators.errors import RunError
from evaluators.samples import is_missing, label

_ANNOTATORS = ("annotator1", "annotator2", "annotator3")


@benchmark("pandalm")
def pandalm(path: Path) -> Iterator[Line]:
    """PandaLM's testset-v1.json (arXiv:2306.05087): what most of its three annotators say; no label if all differ.

    Seen in the published file: an array of 999 objects with idx, motivation_app, cmp_key, instruction, input,
    response1, response2 and annotator1 to annotator3 (1, 2; 0 is a tie in its compute_metrics.py, which takes the
    first annotator's word where all differ). An empty input or response is the bare word NaN, and six responses are
    the bare word true, which pandas made of the text True. cmp_key names the systems, as in llama-7b_opt-7b.
    """
    for number, found in array_or_lines(path):
        yield number, found if isinstance(found, RunError) else _named(number, found)


def _named(number: int, found: Mapping[str, Any]) -> Mapping[str, Any] | RunError:
    needed = ("instruction", "response1", "response2", *_ANNOTATORS)
    if missing := [name for name in needed if name not in found]:
        return RunError(f"has no field {missing[0]!r}, which PandaLM's samples have")
    asked = [_written(found["instruction"]), _written(found.get("input"))]
    if not all(isinstance(text, str) for text in asked):
        return RunError("instruction or input is not a text")
    try:
        votes = Counter(label(found[name], name) for name in _ANNOTATORS if not is_missing(found[name]))
    except RunError as error:
        return error
    said, count = votes.most_common(1)[0] if votes else (None, 0)
    system1, _, system2 = str(found.get("cmp_key", "")).partition("_")
    return {
        "id": f"pandalm-{number - 1:04d}",
        "query": "\n\n".join(filter(None, asked)),
        "response1": _written(found["response1"]),
        "response2": _written(found["response2"]),
        "human": said if count > 1 else None,
        "dataset": "pandalm",
        "system1": system1 if system2 else None,
        "system2": system2 or None,
    }


def _written(value: Any) -> Any:
    """The text of a field as it was before pandas read the cell: NaN was an empty one, true was the text True."""
    if isinstance(value, bool):
        return str(value)
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else value
