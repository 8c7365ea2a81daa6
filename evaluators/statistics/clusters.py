"""Which samples have related errors, and are drawn, and split, together: those of one query.

A query of several turns (`Question 1: ... Question 2: ...`, as MT-bench is read) goes with those that begin alike.
Samples without a query are pairs of dialogues. Two of them are related where any of their dialogues open with the same
turn of the user, or are the same text, and so are all that such links join.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import blake2b

_OPENING = re.compile(r"\s*user:\s*(?P<said>.+?)\s*(?=\n\s*assistant:|\Z)", re.DOTALL | re.IGNORECASE)
_FIRST_TURN = re.compile(r"Question 1:\n(?P<said>.*?)\n\nQuestion 2:\n", re.DOTALL)


def keys(query: str, responses: Sequence[str | None]) -> tuple[str, ...]:
    """What a sample shares with those that it is related to: its query; without one, openings and whole dialogues."""
    if query.strip():
        turns = _FIRST_TURN.match(query)
        return (turns["said"] if turns else query,)
    dialogues = [text for text in responses if text is not None and text.strip()]
    openings = [f"user: {found['said']}" for text in dialogues if (found := _OPENING.match(text))]
    return tuple({*openings, *(f"dialogue {blake2b(text.encode(), digest_size=12).hexdigest()}" for text in dialogues)})


def clusters(samples: Sequence[tuple[str, ...]]) -> list[str]:
    """The cluster of each sample from its `keys`: samples that share one are in one cluster, directly or by others.

    A cluster is called by the least of its keys, so its name does not depend on the samples' order; a sample without
    any key (blank responses to no query) is a cluster of its own.
    """
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        parent.setdefault(key, key)
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    for own in samples:
        for key in own[1:]:
            first, second = sorted((root(own[0]), root(key)))
            parent[second] = first
    return [root(own[0]) if own else f"sample {at}" for at, own in enumerate(samples)]
