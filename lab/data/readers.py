"""One local file -> the raw values in it; of text by lines and of records, one document in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from lab.data.config import TextUnit
from lab.data.documents import Skipped
from lab.data.errors import DataError, missing_field
from lab.data.opening import OPENERS, open_text, readable
from lab.data.records import field_names, json_values

UNREADABLE = frozenset(
    {".zip", ".tar", ".tgz", ".tbz2", ".txz", ".7z", ".rar", ".lz4", ".arrow", ".csv", ".tsv", ".pdf", ".docx", ".npy"}
)
RECORDS = frozenset({".jsonl", ".json", ".ndjson"})
TEXT = frozenset({".txt", ".md", ".rst", ".py", ".text"})
KNOWN = RECORDS | TEXT | UNREADABLE | OPENERS.keys() | {".parquet"}
"""Suffixes that mean a local file even if it does not exist; files of any other suffix are read as text."""


def kind_suffix(path: Path) -> str:
    """The suffix that says what is in a file: the one under that of a compression."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in OPENERS:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def file_format(path: Path) -> str:
    """`parquet`, `records` (JSON) or `text`, from the name.

    Raises:
        DataError: a suffix of something that is not read.
    """
    last = kind_suffix(path)
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

    Text in UTF-16 or UTF-32 comes as UTF-8. A record without the field is counted in `skipped`, unless it is the first
    of its file: then the name is wrong.

    Raises:
        DataError: the file is damaged or may not be read, is not of objects, or the field is not in the first record.
    """
    kind = file_format(path)
    with readable(path):
        if kind == "parquet":
            yield from _parquet_values(path, field)
            return
        with open_text(path) as file:
            if kind == "records":
                yield from json_values(file, path, field, skipped)
            elif text_unit == "file":
                yield file.read()
            elif text_unit == "line":
                # Blank lines separate; they are not documents that were skipped.
                yield from (line for raw in file if (line := raw.strip(b"\r\n")).strip())
            else:
                yield from _paragraphs(file)


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


def _parquet_values(path: Path, field: str) -> Iterator[object]:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    if path.suffix.lower() != ".parquet":
        raise DataError(f"--data.source {path}: Parquet compresses by itself; decompress this file")
    with path.open("rb"):  # permissions are told by the system, not by a reader of Parquet
        pass
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            inner = [] if field in schema.names else _path_to(field, _nested(schema, pa))
            if inner is None:
                raise missing_field(str(path), field, field_names(_nested(schema, pa)))
            for batch in file.iter_batches(batch_size=1024, columns=[field]):
                column = batch.column(0)
                for name in inner:
                    column = pc.struct_field(column, name)
                yield from _text_values(column, path, field, pa)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file ({error})") from error


def _text_values(column: Any, path: Path, field: str, pa: Any) -> Iterator[object]:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    # Parquet does not promise that its strings are UTF-8: as bytes they are checked one by one.
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = column.cast(pa.large_binary())
    elif pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        raise DataError(f"{path}: field {field!r} (--data.field) holds binary data, not text")
    for value in column:
        yield value.as_py()


def _nested(fields: Any, pa: Any) -> dict[str, Any]:
    """Names of a schema's fields, with those of structs inside."""
    return {field.name: _nested(field.type, pa) if pa.types.is_struct(field.type) else None for field in fields}


def _path_to(field: str, names: Mapping[str, Any]) -> list[str] | None:
    """The fields to go through below the first one; None where there are none such."""
    first, *inner = field.split(".")
    below = names.get(first)
    for name in inner:
        if not isinstance(below, Mapping) or name not in below:
            return None
        below = below[name]
    return inner or None
