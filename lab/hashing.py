"""Hash of a file's content: of checkpoints, to find damage, and of text, to find what was tokenised before."""

from __future__ import annotations

from pathlib import Path

import xxhash

_CHUNK_BYTES = 1 << 22


def file_hash(path: Path) -> str:
    """128-bit xxh3 of a file's content, in hexadecimal; never holds it whole."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
