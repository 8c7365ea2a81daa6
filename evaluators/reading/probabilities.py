"""Scores from token probabilities: the expected score in place of the one that was drawn (G-Eval, arXiv:2303.16634)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Token:
    """A token of a reply, and the natural logarithms of the probabilities of the likeliest in its place."""

    text: str
    top: Mapping[str, float]


def expectation(logs: Mapping[int, float]) -> float:
    """E[score] = sum_s s p(s) / sum_s p(s), over the scores whose log-probabilities are known."""
    largest = max(logs.values())
    weights = {score: math.exp(value - largest) for score, value in logs.items()}
    return sum(score * weight for score, weight in weights.items()) / sum(weights.values())


def expected_score(
    text: str, spans: Sequence[tuple[int, int]], tokens: Sequence[Token], scale: tuple[int, int]
) -> tuple[float, ...] | None:
    """The expected score at each place where a score stands in the reply.

    A score must be one digit, so that it is one token in every tokenizer: the scale ends at 9 or before.

    Returns:
        None where the tokens do not spell the text, or a score does not begin a token of its own.
    """
    if "".join(token.text for token in tokens)[: len(text)] != text:
        return None
    starts: dict[int, Token] = {}
    position = 0
    for token in tokens:
        # " 8" begins at its digit.
        starts[position + len(token.text) - len(token.text.lstrip())] = token
        position += len(token.text)
    expected = []
    for start, _ in spans:
        logs: dict[int, float] = {}
        for spelling, value in (starts[start].top if start in starts else {}).items():
            digit = spelling.strip()
            if digit.isdecimal() and len(digit) == 1 and scale[0] <= int(digit) <= scale[1]:
                logs[int(digit)] = max(value, logs.get(int(digit), -math.inf))
        if not logs:
            return None
        expected.append(expectation(logs))
    return tuple(expected)
