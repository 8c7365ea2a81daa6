"""Raw value -> document, with unusable ones counted, and the split into training and held-out documents."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import xxhash

from lab.data.errors import DataError


class Skipped(Counter[str]):
    """Number of documents skipped, by reason."""

    def __init__(self) -> None:
        super().__init__()
        self.first: dict[str, str] = {}
        """Reason -> name of the first file with such a document, where documents come from files."""

    def name(self, file: str) -> None:
        """What was counted since the last call came from this file."""
        for reason in self:
            self.first.setdefault(reason, file)


class Document(NamedTuple):
    """One usable text."""

    text: str
    size: int
    """UTF-8 bytes."""
    digest: int
    """64-bit xxh3 of the UTF-8 bytes."""


def as_document(value: object, skipped: Skipped) -> Document | None:
    """A document from what a reader found, or None after counting the reason in `skipped`.

    A byte order mark is dropped. Text of white space only counts as empty.
    """
    try:
        # A JSON string may hold half a surrogate pair, which is no text either: encoding finds it.
        text = value.decode("utf-8-sig") if isinstance(value, bytes) else value
        raw = text.encode() if isinstance(text, str) else None
    except UnicodeError:
        skipped["invalid UTF-8"] += 1
        return None
    if not isinstance(text, str) or raw is None:
        skipped["not a string"] += 1
        return None
    if not text.strip():
        skipped["empty"] += 1
        return None
    return Document(text, len(raw), xxhash.xxh3_64_intdigest(raw))


def in_share(document: Document, share: float) -> bool:
    """Whether a document's hash falls in the first `share` (0 to 1) of its range.

    It depends on the text alone: copies of a document always fall on the same side, in any order of files.
    """
    return document.digest < share * 2**64


def no_documents(name: str, skipped: Skipped) -> DataError:
    """The error for a source in which nothing is usable."""
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(skipped.items())) or "it is empty"
    return DataError(f"--data.source {name}: no usable document; skipped: {reasons}")
