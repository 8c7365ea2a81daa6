"""One local file -> the raw values in it, never more than one document in memory."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from lab.data.config import TextUnit
from lab.data.documents import Skipped
from lab.data.errors import DataError, missing_field

OPENERS: dict[str, Callable[[Path], Any]] = {
    ".gz": gzip.GzipFile,
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
}
UNREADABLE = frozenset({".zst", ".zip", ".tar", ".7z", ".arrow", ".csv", ".tsv"})
RECORDS = frozenset({".jsonl", ".json", ".ndjson"})
TEXT = frozenset({".txt", ".md", ".rst", ".py", ".text"})
KNOWN = RECORDS | TEXT | UNREADABLE | OPENERS.keys() | {".parquet"}
"""Suffixes that mean a local file even if it does not exist; files of any other suffix are read as text."""


def file_format(path: Path) -> str:
    """`parquet`, `records` (JSON Lines) or `text`, from the suffix under any compression suffix.

    Raises:
        DataError: a suffix of something that is not read.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in OPENERS:
        suffixes.pop()
    last = suffixes[-1] if suffixes else ""
    if last in UNREADABLE:
        raise DataError(
            f"--data.source {path}: {last} files are not read; give text, JSON Lines or Parquet, compressed "
            f"with {', '.join(OPENERS)} or not at all"
        )
    if last == ".parquet":
        return "parquet"
    return "records" if last in RECORDS else "text"


def read_values(path: Path, *, field: str, text_unit: TextUnit, skipped: Skipped) -> Iterator[object]:
    """The values of a file in order: bytes of a text unit, or whatever stands in `field` of a record.

    A record without the field is counted in `skipped`, unless it is the first of its file: then the name is
    wrong.

    Raises:
        DataError: the file is damaged, a line is not a JSON object, or the field is not in the first record.
    """
    kind = file_format(path)
    if kind == "parquet":
        yield from _parquet_values(path, field)
        return
    try:
        with OPENERS.get(path.suffix.lower(), lambda path: path.open("rb"))(path) as file:
            if kind == "records":
                yield from _record_values(file, path, field, skipped)
            elif text_unit == "file":
                yield file.read()
            elif text_unit == "line":
                # Blank lines separate; they are not documents that were skipped.
                yield from (line for raw in file if (line := raw.strip(b"\r\n")).strip())
            else:
                yield from _paragraphs(file)
    except (gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError) as error:
        raise DataError(f"{path}: damaged {path.suffix} file ({error}); copy or download it again") from error


def _paragraphs(lines: IO[bytes]) -> Iterator[bytes]:
    paragraph: list[bytes] = []
    for line in lines:
        if line.strip():
            paragraph.append(line)
        elif paragraph:
            yield b"".join(paragraph).strip(b"\r\n")
            paragraph = []
    if paragraph:
        yield b"".join(paragraph).strip(b"\r\n")


def _record_values(lines: IO[bytes], path: Path, field: str, skipped: Skipped) -> Iterator[object]:
    first = True
    for number, raw in enumerate(lines, start=1):
        if not raw.strip():
            continue
        try:
            record: Any = json.loads(raw.decode("utf-8-sig"))
        except UnicodeDecodeError:
            skipped["invalid UTF-8"] += 1
            continue
        except json.JSONDecodeError as error:
            raise DataError(
                f"{path}:{number}: not valid JSON ({error.msg}, column {error.colno}). Each line must hold "
                "one object; repair or delete this line (a cut last line means an incomplete download)"
            ) from error
        if not isinstance(record, dict):
            raise DataError(
                f"{path}:{number}: a JSON {type(record).__name__}, not an object; each line must look like "
                f'{{"{field}": "..."}}'
            )
        if field in record:
            yield record[field]
        elif first:
            raise missing_field(f"{path}:{number}", field, record)
        else:
            skipped[f"no field {field!r}"] += 1
        first = False


def _parquet_values(path: Path, field: str) -> Iterator[object]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            if field not in schema.names:
                raise missing_field(str(path), field, schema.names)
            for batch in file.iter_batches(batch_size=1024, columns=[field]):
                column = batch.column(0)
                if pa.types.is_dictionary(column.type):
                    column = column.dictionary_decode()
                # Parquet does not promise that its strings are UTF-8: as bytes they are checked one by one.
                if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
                    column = column.cast(pa.large_binary())
                elif pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
                    raise DataError(f"{path}: field {field!r} (--data.field) holds binary data, not text")
                for value in column:
                    yield value.as_py()
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: not a readable Parquet file ({error})") from error
