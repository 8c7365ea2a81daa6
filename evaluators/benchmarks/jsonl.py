from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from evaluators.benchmarks import Line, benchmark
from evaluators.errors import RunError


@benchmark("jsonl")
def jsonl(path: Path) -> Iterator[Line]:
    """JSON Lines (one object a line, blank lines passed over), plain or as the only such file in a ZIP."""
    with unpacked(path) as file:
        try:
            yield from _lines(file)
        except RunError as error:
            raise RunError(f"--data {path}: {error}") from error


@contextmanager
def unpacked(path: Path) -> Iterator[IO[bytes]]:
    """The file, or the only .json or .jsonl file of a ZIP. Raises RunError where it cannot be read."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive, archive.open(_only_member(archive, path)) as file:
                yield file
        else:
            with path.open("rb") as file:
                yield file
    except (OSError, zipfile.BadZipFile) as error:
        raise RunError(f"--data {path}: {getattr(error, 'strerror', None) or error}; name a file of samples") from error


def _only_member(archive: zipfile.ZipFile, path: Path) -> str:
    names = [
        name for name in archive.namelist() if name.endswith((".json", ".jsonl")) and not name.startswith("__MACOSX/")
    ]
    if len(names) != 1:
        raise RunError(f"--data {path}: expected one .json or .jsonl file in the ZIP, found {len(names)}")
    return names[0]


def _lines(file: Any) -> Iterator[Line]:
    started = False
    for number, raw in enumerate(file, start=1):
        if raw.strip():
            if not started and (other := _other_than_lines(raw)):
                raise RunError(other)
            started = True
            yield number, _object(raw)


def _other_than_lines(first: bytes) -> str | None:
    """What a file is that does not begin as JSON Lines do, and what to do with it; said once, not for each line."""
    begin = first.removeprefix(b"\xef\xbb\xbf").strip()
    if first.startswith((b"\xff\xfe", b"\xfe\xff")) or first[:2] in (b"{\0", b"\0{"):
        return "this is UTF-16 or UTF-32; write it as UTF-8, as with iconv -f UTF-16 -t UTF-8"
    if first.startswith(b"\x1f\x8b"):
        return "this is packed with gzip; unpack it, or pipe it: --data <(zcat FILE)"
    if first.startswith(b"PAR1"):
        return "this is Parquet; name the data set or its folder with --format hf"
    if begin == b"[" or begin.startswith(b"[{"):
        return "this is a JSON array; write one object a line, as jq -c '.[]' FILE does"
    if begin == b"{":
        return "this is an object over several lines; write one object a line, as jq -c . FILE does"
    return None


def _object(raw: bytes) -> dict[str, Any] | RunError:
    try:
        value = json.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return RunError(f"not UTF-8: {error.reason} at byte {error.start}")
    except json.JSONDecodeError as error:
        return RunError(f"not JSON: {error.msg} at column {error.colno}")
    except (RecursionError, ValueError) as error:
        return RunError(f"not JSON that can be read: {error}")
    return value if isinstance(value, dict) else RunError(f"holds a {type(value).__name__}, not an object")


def array_or_lines(path: Path) -> Iterator[Line]:
    """A JSON array of objects, numbered from 1, or JSON Lines. Raises RunError where the file is neither."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RunError(f"--data {path}: {error.strerror}; name a file of samples") from error
    if not content.lstrip().startswith(b"["):
        yield from jsonl(path)
        return
    try:
        items = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise RunError(f"--data {path}: not JSON that can be read: {error}") from error
    for number, item in enumerate(items, start=1):
        yield number, item if isinstance(item, dict) else RunError(f"holds a {type(item).__name__}, not an object")
