"""What becomes of a call: an answer, or another try, or none; and how many there were."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from evaluators.errors import RunError
from evaluators.judges import Kind
from evaluators.messages import Reply
from evaluators.values import Record, Usage


class StoppedError(RunError):
    """Someone asked for an end: no new call is made."""


@dataclass(frozen=True)
class Retries:
    """How a call without an answer is tried again: waits of `first_s` x 2^k with full jitter."""

    most: int = 6
    first_s: float = 1.0
    longest_s: float = 60.0
    longest_asked_s: float = 300.0
    """A server that is down and asks for a longer wait has refused the call."""

    def wait_s(self, tried: int) -> float:
        """Before the try after `tried` ones. Jitter keeps calls from returning all at once."""
        return random.uniform(0, min(self.longest_s, self.first_s * 2 ** min(tried - 1, 30)))


@dataclass
class Counts:
    """What a judge has done in this run."""

    calls: int = 0
    """Replies that were made, not counting those from the cache."""
    cached: int = 0
    failed: int = 0
    read: int = 0
    """Questions whose reply could be read."""
    unread: int = 0


@dataclass(frozen=True)
class Answer:
    """A reply with its record, or why there is none."""

    reply: Reply | None
    record: Record
    reason: str | None = None
    kind: Kind | Literal["internal"] = "call"
    """Of the failure."""
    trace: str | None = None
    """Where an exception came from that no judge should raise."""


def plus(one: Usage, other: Usage | None) -> Usage:
    """The tokens of both."""
    if other is None:
        return one
    return Usage(
        one.prompt + other.prompt,
        one.completion + other.completion,
        one.cached_prompt + other.cached_prompt,
        one.estimated or other.estimated,
        one.reasoning + other.reasoning,
    )
