"""Documents -> a token file (`.npy`), written as they come, with counts of what went in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from lab.data.documents import Document
from lab.data.encoder import Encoder

GROUP_DOCUMENTS = 64
GROUP_BYTES = 1 << 20


@dataclass
class TokenCounts:
    """What is in a token file."""

    documents: int = 0
    bytes: int = 0
    """UTF-8 bytes of the documents."""
    tokens: int = 0
    """End tokens included."""
    longest_document: int = 0
    """Tokens, end token included."""
    max_token_id: int = -1


class TokenWriter:
    """Context manager that writes token ids to one `.npy` file without holding them.

    Args:
        path: the file.
        encoder: what the ids are of.
        bytes_path: a second file, for the bytes of the text that each token stands for.
    """

    def __init__(self, path: Path, encoder: Encoder, *, bytes_path: Path | None = None) -> None:
        self.counts = TokenCounts()
        self._encoder = encoder
        self._tokens = _Column(path, np.dtype(np.uint16 if encoder.max_id < 2**16 else np.uint32))
        self._bytes = None if bytes_path is None else _Column(bytes_path, np.dtype(np.uint32))

    def append(self, document: Document, tokens: np.ndarray) -> None:
        """Add a document's tokens, (n,), n >= 1."""
        self._tokens.append(tokens)
        if self._bytes is not None:
            self._bytes.append(self._encoder.byte_counts(document.text, tokens))
        counts = self.counts
        counts.documents += 1
        counts.bytes += document.size
        counts.tokens += len(tokens)
        counts.longest_document = max(counts.longest_document, len(tokens))
        counts.max_token_id = max(counts.max_token_id, int(tokens.max()))

    def __enter__(self) -> TokenWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for column in (self._tokens, self._bytes):
            if column is not None:
                column.close()


class _Column:
    """A one-dimensional `.npy` file that grows."""

    def __init__(self, path: Path, dtype: np.dtype[Any]) -> None:
        self._dtype, self._length = dtype, 0
        self._file = path.open("wb")
        self._write_header()

    def append(self, values: np.ndarray) -> None:
        values.astype(self._dtype).tofile(self._file)
        self._length += len(values)

    def close(self) -> None:
        self._file.seek(0)
        self._write_header()
        self._file.close()

    def _write_header(self) -> None:
        # numpy pads headers so that the length can grow in place, for exactly this use.
        header: dict[str, Any] = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": (self._length,),
        }
        np.lib.format.write_array_header_1_0(self._file, header)
        self._file.flush()


def encode_documents(documents: Iterable[Document], encoder: Encoder) -> Iterator[tuple[Document, np.ndarray]]:
    """Each document with its tokens, encoded in groups so that several processor cores work."""
    group: list[Document] = []
    size = 0
    for document in documents:
        group.append(document)
        size += document.size
        if len(group) == GROUP_DOCUMENTS or size >= GROUP_BYTES:
            yield from zip(group, encoder.encode([member.text for member in group]), strict=True)
            group, size = [], 0
    if group:
        yield from zip(group, encoder.encode([member.text for member in group]), strict=True)
