"""A file of text as UTF-8 bytes: decompressed, and brought over from UTF-16 and UTF-32."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import unicodedata
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import zstandard

from lab.data.errors import DataError

_HEAD_BYTES = 8192
_CHUNK_BYTES = 1 << 16
_LARGEST_WINDOW = 1 << 31
"""Of zstandard, for files that were written with `--long=31`."""
_MARKS = {
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
"""Byte order marks; the longer ones first, since one begins with another."""


class _Zstandard(io.RawIOBase):
    """The content of a `.zst` file, of one frame or several."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._ready = memoryview(b"")
        self._frame: Any = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            rest = self._frame.unused_data if self._frame is not None and self._frame.eof else b""
            raw = rest or self._file.read(_CHUNK_BYTES)
            if self._frame is None or self._frame.eof:
                if not raw:
                    return 0
                self._frame = zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW).decompressobj()
            if not raw:
                raise EOFError("it ends before its end-of-stream marker")
            self._ready = memoryview(self._frame.decompress(raw))
        size = min(len(buffer), len(self._ready))
        buffer[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size

    def close(self) -> None:
        self._file.close()
        super().close()


OPENERS: dict[str, Callable[[Path], Any]] = {
    ".gz": gzip.GzipFile,
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
    ".zst": lambda path: io.BufferedReader(_Zstandard(path)),
}
"""By the last suffix of a name."""


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what goes wrong while `path` is read into a line to report.

    Raises:
        DataError: a damaged archive, or a file that may not or cannot be read.
    """
    try:
        yield
    except (gzip.BadGzipFile, zlib.error, lzma.LZMAError, zstandard.ZstdError, EOFError) as error:
        raise _damaged(path, error) from error
    except OSError as error:
        if error.errno is None:  # of bz2
            raise _damaged(path, error) from error
        raise unreadable(path, error) from error


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(f"{path}: damaged {path.suffix} file ({error}); copy or download it again")


def unreadable(path: Path, error: OSError) -> DataError:
    """The error for a file or folder that the system does not let us read."""
    remedy = "; give this user the right to read it (chmod)" if isinstance(error, PermissionError) else ""
    return DataError(f"--data.source {path}: cannot be read: {error.strerror}{remedy}")


@contextmanager
def open_text(path: Path) -> Iterator[IO[bytes]]:
    """The text of a file, to be read by lines or whole, in UTF-8 unless it is in another encoding than Unicode's."""
    with OPENERS.get(path.suffix.lower(), lambda path: path.open("rb"))(path) as file:
        encoding = encoding_of(file.peek(_HEAD_BYTES)[:_HEAD_BYTES])
        if encoding is None:
            yield file
            return
        with io.BufferedReader(_Transcoded(file, encoding)) as text:
            yield cast(IO[bytes], text)


class _Transcoded(io.RawIOBase):
    """Text of another Unicode encoding as UTF-8. Half a surrogate pair stays one, which UTF-8 does not allow."""

    def __init__(self, file: IO[bytes], encoding: str) -> None:
        self._text = io.TextIOWrapper(file, encoding, errors="surrogatepass", newline="")
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._ready:
            try:
                text = self._text.read(_CHUNK_BYTES)
            except UnicodeDecodeError as error:
                raise EOFError(f"{error.encoding} text that ends within a character") from error
            self._ready = memoryview(text.encode("utf-8", "surrogatepass"))
        size = min(len(buffer), len(self._ready))
        buffer[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size

    def close(self) -> None:
        self._text.detach()
        super().close()


def encoding_of(head: bytes) -> str | None:
    """UTF-16 or UTF-32, as a name that Python knows, by the beginning of a file; None for anything else.

    By its byte order mark; without one, by NUL bytes, which text in UTF-8 does not have, where reading them as half of
    a character gives text with spaces or ends of lines in it and no control characters, as UTF-8 does not.
    """
    for mark, encoding in _MARKS.items():
        if head.startswith(mark):
            return encoding
    if b"\0" not in head or _oddness(_decoded(head, "utf-8")) <= _FEW:
        return None
    texts = {name: _decoded(head, name) for name in ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")}
    spaces = {name: text.count(" ") + text.count("\n") for name, text in texts.items() if _oddness(text) <= _FEW}
    best = max(spaces, key=lambda name: spaces[name], default=None)
    return best if best is not None and spaces[best] else None


_FEW = 0.02


def _decoded(head: bytes, encoding: str) -> str:
    """As much of it as is valid; nothing where hardly any of it is."""
    width = {"utf-8": 1, "utf-16-le": 2, "utf-16-be": 2}.get(encoding, 4)
    text = head[: len(head) // width * width].decode(encoding, "replace")
    return text[:-1] if text.endswith("\ufffd") else text  # a character that the head cuts


def _oddness(text: str) -> float:
    """Share of the characters that no text has: control, unassigned, private or replaced ones; 1 for no text."""
    odd = sum(
        (unicodedata.category(character) in ("Cc", "Cn", "Co", "Cs") and character not in "\t\n\r\f")
        or character == "\ufffd"
        for character in text
    )
    return odd / len(text) if text else 1.0
