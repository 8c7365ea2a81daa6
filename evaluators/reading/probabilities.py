"""Scores from token probabilities: the expected score in place of the one that was drawn (G-Eval, arXiv:2303.16634)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_DIGIT = re.compile(r"\d(?:[.,]0+)?")


@dataclass(frozen=True)
class Token:
    """A token of a reply, and the natural logarithms of the probabilities of the likeliest in its place."""

    bytes: bytes
    """A token may be a part of a character: an emoji, a Chinese sign."""
    top: Mapping[str, float]


def expectation(logs: Mapping[int, float]) -> float:
    """E[score] = sum_s s p(s) / sum_s p(s), over the scores whose log-probabilities are known."""
    largest = max(logs.values())
    weights = {score: math.exp(value - largest) for score, value in logs.items()}
    return sum(score * weight for score, weight in weights.items()) / sum(weights.values())


def tokens_from(listed: Any) -> list[Token] | None:
    """Tokens of a chat completion's `logprobs.content`, by their `bytes` where the server gives them.

    Returns:
        None where it is no list of tokens. A candidate without a probability (`logprob: null`) is left out.
    """
    if not isinstance(listed, list):
        return None
    tokens = []
    for item in listed:
        if not isinstance(item, Mapping):
            return None
        raw, text = item.get("bytes"), item.get("token")
        if isinstance(raw, list) and all(isinstance(byte, int) and 0 <= byte < 256 for byte in raw):
            spelling = bytes(raw)
        elif isinstance(text, str):
            spelling = text.encode(errors="replace")
        else:
            return None
        likeliest = item.get("top_logprobs")
        top: dict[str, float] = {}
        for candidate in likeliest if isinstance(likeliest, list) else ():
            name, value = (
                (candidate.get("token"), candidate.get("logprob")) if isinstance(candidate, Mapping) else (0, 0)
            )
            if isinstance(name, str) and isinstance(value, (int, float)) and not math.isnan(value):
                top[name] = max(float(value), top.get(name, -math.inf))
        tokens.append(Token(spelling, top))
    return tokens


def expected_score(
    text: str, spans: Sequence[tuple[int, int]], tokens: Sequence[Token], scale: tuple[int, int]
) -> tuple[float, ...] | None:
    """The expected score at each place where a score stands in the reply.

    A score must be one digit, so that it is one token in every tokenizer: the scale ends at 9 or before. The tokens may
    spell more than the text: thoughts before it, the end of the turn behind it.

    Returns:
        None where the tokens do not spell the text from its first score on, or a score is no token of its own.
    """
    begin = min(start for start, _ in spans)
    told = text[begin:].rstrip().encode(errors="replace")
    at = b"".join(token.bytes for token in tokens).rfind(told)
    if at < 0:
        return None
    starts: dict[int, Token] = {}
    position = 0
    for token in tokens:
        # " 8" begins at its digit.
        starts[position + len(token.bytes) - len(token.bytes.lstrip())] = token
        position += len(token.bytes)
    expected = []
    for start, end in spans:
        token_at = starts.get(at + len(text[begin:start].encode(errors="replace")))
        is_digit = _DIGIT.fullmatch(text, start, end) is not None
        if token_at is None or not is_digit or token_at.bytes.strip() != text[start].encode(errors="replace"):
            return None
        logs: dict[int, float] = {}
        for spelling, value in token_at.top.items():
            digit = spelling.strip()
            if digit.isdecimal() and len(digit) == 1 and scale[0] <= int(digit) <= scale[1] and value > -math.inf:
                logs[int(digit)] = max(value, logs.get(int(digit), -math.inf))
        if not logs:
            return None
        expected.append(expectation(logs))
    return tuple(expected)
