"""Tokens of a call, from the shapes in which servers report them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evaluators.values import Usage

_PROMPT = ("prompt_tokens", "input_tokens", "promptTokenCount")
_COMPLETION = ("completion_tokens", "output_tokens", "candidatesTokenCount")
_TOTAL = ("total_tokens", "totalTokenCount")
_REASONING = ("reasoning_tokens", "thoughtsTokenCount")
_CACHED = ("cached_tokens", "prompt_cache_hit_tokens", "cachedContentTokenCount", "cache_read_input_tokens")
_DETAILS = (
    "prompt_tokens_details",
    "completion_tokens_details",
    "input_tokens_details",
    "output_tokens_details",
)
_MOST = 10**8
"""More tokens than any model takes."""


def reported(usage: Any) -> Usage | None:
    """As the provider bills it; None where nothing plausible is reported.

    Completion tokens are max(completion, total - prompt): some report the tokens of thoughts in the total only. Where
    more was thought than completed, thoughts do not stand in `completion_tokens` either, and are added.
    """
    if not isinstance(usage, Mapping):
        return None
    details = [usage, *(usage[name] for name in _DETAILS if isinstance(usage.get(name), Mapping))]
    prompt, completion = _first(details, _PROMPT), _first(details, _COMPLETION)
    if not prompt or completion is None:
        return None
    reasoning = _first(details, _REASONING) or 0
    said = completion + (reasoning if reasoning > completion else 0)
    billed = max(said, (_first(details, _TOTAL) or 0) - prompt)
    unsaid = billed - completion if billed > said else 0
    return Usage(
        prompt,
        billed,
        cached_prompt=min(_first(details, _CACHED) or 0, prompt),
        reasoning=min(max(reasoning, unsaid), billed),
    )


def completion_tokens(usage: Any) -> int:
    """What is reported as completion, without what only the total tells of; 0 where nothing is."""
    return (_first([usage], _COMPLETION) or 0) if isinstance(usage, Mapping) else 0


def _first(tables: list[Mapping[str, Any]], names: tuple[str, ...]) -> int | None:
    for table in tables:
        for name in names:
            value = table.get(name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                continue
            if 0 <= value <= _MOST and value == int(value):
                return int(value)
    return None
