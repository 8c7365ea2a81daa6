"""Texts as they can be stored and read again: as UTF-8, by line, and a file whole or not at all."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

_SURROGATES = re.compile("[\ud800-\udfff]")
_CONTROLS = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\U000e0000-\U000e007f]"
)
_LINE_ENDS = {0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}
"""What `str.splitlines` takes for the end of a line and JSON leaves as it is."""


def clean(text: str) -> str:
    """Without lone surrogates, which can be neither encoded, sent nor stored; pairs become the sign that they spell."""
    if _SURROGATES.search(text) is None:
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def printable(text: str) -> str:
    """Without the signs by which a text could move the cursor, colour the screen, turn its direction or hide."""
    return _CONTROLS.sub("\ufffd", clean(text).replace("\r\n", "\n"))


def one_line(text: str, most: int | None = None) -> str:
    """`printable` in one line, each run of blanks a space, and at most so many characters."""
    found = printable(" ".join(text.split()))
    return found if most is None or len(found) <= most else found[: most - 1].rstrip() + "\u2026"


def json_line(value: Any) -> bytes:
    """The value on one line, however lines are told apart."""
    return clean(json.dumps(value, ensure_ascii=False)).translate(_LINE_ENDS).encode() + b"\n"


def write_whole(path: Path, text: str) -> None:
    """Beside, then renamed: a reader finds the old content or the new. Raises OSError."""
    part = path.with_name(f"{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def without_half_line(path: Path) -> None:
    """Cut off a last line that a killed process left half written."""
    with path.open("rb+") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - 65536)
            file.seek(start)
            if (at := file.read(end - start).rfind(b"\n")) >= 0:
                file.truncate(start + at + 1)
                return
            end = start
        file.truncate(0)
