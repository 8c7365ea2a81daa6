"""Texts that nobody vouches for, put between marks that they cannot close."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from evaluators.reading.markup import neutralize
from evaluators.storing import one_line


def code_for(texts: Sequence[str]) -> str:
    """A code that occurs in none of the texts.

    It is a hash of them all, so the same call has the same code (and hits the cache), and a text that contained it
    would have to contain its own hash.
    """
    code = hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]
    while any(code in text for text in texts):
        code = hashlib.sha256(code.encode()).hexdigest()[:12]
    return code


def wrap(text: str, name: str, code: str) -> str:
    """The text between a start and an end mark."""
    return f"[start of {name} {code}]\n{neutralize(text)}\n[end of {name} {code}]"


def wrap_line(text: str, name: str, code: str) -> str:
    """The same for what is named within a line, such as a perspective, which a model may have written."""
    return f"[start of {name} {code}] {neutralize(one_line(text))} [end of {name} {code}]"
