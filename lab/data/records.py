"""Records with a field of text: where the field is in one, and how a file of JSON is cut into them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from lab.data.documents import Skipped
from lab.data.errors import DataError, missing_field

ABSENT = object()
"""What `value_at` gives where a record has no such field."""


def value_at(record: Mapping[str, Any], field: str) -> Any:
    """What stands in a field: under its own name, or, with dots in it, inside of others (`meta.text`)."""
    if field in record:
        return record[field]
    value: Any = record
    for name in field.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return ABSENT
        value = value[name]
    return value


def field_names(record: Mapping[str, Any], prefix: str = "") -> list[str]:
    """All names that `value_at` takes for a record."""
    names = []
    for name, value in record.items():
        names.append(f"{prefix}{name}")
        if isinstance(value, Mapping):
            names += field_names(value, f"{prefix}{name}.")
    return names


def json_values(file: IO[bytes], path: Path, field: str, skipped: Skipped) -> Iterator[object]:
    """What stands in `field` of every record of a file: one a line, an array of them, or printed over several lines.

    Lines are read one by one; anything else is held in memory whole. A record without the field is counted in
    `skipped`, unless it is the first of its file: then the name is wrong.

    Raises:
        DataError: what is not JSON, or no object, and where; or the field is not in the first record.
    """
    first = True
    for number, record in _records(file, path, skipped):
        if not isinstance(record, dict):
            raise DataError(
                f"{path}:{number}: a JSON {type(record).__name__}, not an object; each record must look like "
                f'{{"{field}": "..."}}'
            )
        value = value_at(record, field)
        if value is not ABSENT:
            yield value
        elif first:
            raise missing_field(f"{path}:{number}", field, field_names(record))
        else:
            skipped[f"no field {field!r}"] += 1
        first = False


def _records(file: IO[bytes], path: Path, skipped: Skipped) -> Iterator[tuple[int, Any]]:
    """Each record with the number of the line on which it begins."""
    is_first = True
    for number, raw in enumerate(file, start=1):
        if not raw.strip():
            continue
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError:
            skipped["invalid UTF-8"] += 1
            continue
        try:
            record = _parsed(text, path, number)
        except json.JSONDecodeError as error:
            if is_first and (error.msg == "Extra data" or not text[error.pos :].strip()):
                yield from _of_whole_text(text, file, path, number)
                return
            raise _broken(path, number, error) from error
        if is_first and isinstance(record, list):
            yield from _of_whole_text(text, file, path, number)
            return
        yield number, record
        is_first = False


def _of_whole_text(text: str, file: IO[bytes], path: Path, line: int) -> Iterator[tuple[int, Any]]:
    """The records of JSON values one after another, wherever lines end; arrays hold records."""
    try:
        text += file.read().decode()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: JSON over several lines that is not UTF-8 (byte {error.start}); store it in UTF-8"
        ) from error
    position = 0
    while True:
        begin = _after_blank(text, position)
        line, position = line + text.count("\n", position, begin), begin
        if position == len(text):
            return
        try:
            value, end = _next_value(text, position, path, line)
        except json.JSONDecodeError as error:
            raise _broken(path, line + text.count("\n", position, error.pos), error) from error
        yield from ((line, record) for record in (value if isinstance(value, list) else [value]))
        line, position = line + text.count("\n", position, end), end


def _parsed(text: str, path: Path, number: int) -> Any:
    value, end = _next_value(text, _after_blank(text, 0), path, number)
    if (rest := _after_blank(text, end)) < len(text):
        raise json.JSONDecodeError("Extra data", text, rest)
    return value


def _next_value(text: str, position: int, path: Path, number: int) -> tuple[Any, int]:
    try:
        return _DECODER.raw_decode(text, position)
    except json.JSONDecodeError:
        raise
    except ValueError:  # an integer of more digits than Python reads
        return _DECODER_OF_LONG_NUMBERS.raw_decode(text, position)
    except RecursionError:
        raise DataError(f"{path}:{number}: JSON that is nested too deeply to be read; delete this record") from None


def _after_blank(text: str, position: int) -> int:
    found = _BLANK.match(text, position)
    assert found is not None
    return found.end()


_BLANK = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()
_DECODER_OF_LONG_NUMBERS = json.JSONDecoder(parse_int=str)


def _broken(path: Path, number: int, error: json.JSONDecodeError) -> DataError:
    return DataError(
        f"{path}:{number}: not valid JSON ({error.msg}, column {error.colno}). A file holds one object a line, or an "
        "array of objects; repair or delete this record (a cut end means an incomplete download)"
    )
