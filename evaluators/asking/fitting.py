"""What does not fit a judge's context is shortened here, by one rule, before the server would cut it by another.

The rule: the longest texts are cut to a common length, from their middle, until the prompt and the longest reply fit.
A mark says how much is missing. Both responses of a pair are cut to the same length, in either order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

SHORTEST = 80
"""Characters that any text keeps; where that is still too long, the sample does not fit."""


def shorten(text: str, length: int) -> str:
    """At most about `length` characters: the beginning and the end, with a mark between them."""
    if len(text) <= length:
        return text
    head = length * 2 // 3
    tail = length - head
    return f"{text[:head]}\n[... {len(text) - length:,} characters left out here ...]\n{text[len(text) - tail :]}"


def fit(texts: Sequence[str], fits: Callable[[Sequence[str]], bool]) -> tuple[list[str], int] | None:
    """The texts, shortened as little as `fits` asks for.

    Returns:
        The texts and the number of characters left out; None where not even `SHORTEST` characters of each fit.
    """
    if fits(texts):
        return list(texts), 0
    low, high = SHORTEST, max(map(len, texts))
    if not fits([shorten(text, low) for text in texts]):
        return None
    while high - low > max(8, low // 50):
        middle = (low + high) // 2
        low, high = (middle, high) if fits([shorten(text, middle) for text in texts]) else (low, middle)
    return [shorten(text, low) for text in texts], sum(max(0, len(text) - low) for text in texts)
