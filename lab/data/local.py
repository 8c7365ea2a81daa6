"""Local files as a source, including the built-in corpus."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from lab.data.builtin import builtin_files
from lab.data.cache import content_key
from lab.data.config import DataConfig, TextUnit
from lab.data.documents import Document, Skipped, as_document, no_documents
from lab.data.errors import DataError, did_you_mean
from lab.data.progress import bar
from lab.data.readers import KNOWN, UNREADABLE, file_format, read_values
from lab.hashing import file_hash

BUILTIN = "builtin"


@dataclass(frozen=True)
class LocalSource:
    """Files, read in order."""

    name: str
    files: tuple[Path, ...]
    field: str
    text_unit: TextUnit
    left_out: int = 0
    """Files of a kind that is not read, in folders; counted as skipped."""

    def fingerprint(self, *, progress: bool) -> str:
        """A key of everything that decides the documents: contents and formats of the files, in order."""
        digests = []
        with bar("hashing files", progress=progress, unit="B", total=self.bytes) as shown:
            for path in self.files:
                status = path.stat()
                digests.append([file_format(path), path.suffix, _digest(path, status.st_size, status.st_mtime_ns)])
                shown.update(status.st_size)
        return content_key(files=digests, left_out=self.left_out, field=self.field, text_unit=self.text_unit)

    def documents(self, skipped: Skipped) -> Iterator[Document]:
        """Every usable document once, in order; the others are counted in `skipped`.

        Raises:
            DataError: a file is damaged, the field does not exist, or nothing was usable.
        """
        if self.left_out:
            skipped["unsupported file type"] += self.left_out
        found = False
        for path in self.files:
            values = read_values(path, field=self.field, text_unit=self.text_unit, skipped=skipped)
            for value in values:
                document = as_document(value, skipped)
                if document is not None:
                    found = True
                    yield document
            skipped.name(path.name)
        if not found:
            raise no_documents(self.name, skipped)

    @property
    def bytes(self) -> int:
        """Total size of the files on disk."""
        return sum(path.stat().st_size for path in self.files)


@lru_cache(maxsize=65536)
def _digest(path: Path, size: int, mtime_ns: int) -> str:
    """`file_hash`, once a process for a file that does not change (tokenizer and tokens both ask)."""
    return file_hash(path)


def is_local(entry: str) -> bool:
    """Whether a `--data.source` entry means files here rather than the name of a Hugging Face data set."""
    return (
        entry == BUILTIN
        or glob.has_magic(entry)
        or entry.startswith(("/", "./", "../", "~"))
        or Path(entry).suffix.lower() in KNOWN
        or Path(entry).exists()
    )


def local_source(config: DataConfig) -> LocalSource:
    """The files that the entries of `--data.source` name, each once; folders and globs are sorted.

    Raises:
        DataError: an entry names nothing, or a file of a kind that is not read.
    """
    files: dict[Path, None] = {}
    left_out = 0
    for entry in config.source:
        found = _files(entry)
        if Path(entry).expanduser().is_dir():
            readable = [path for path in found if path.suffix.lower() not in UNREADABLE]
            left_out += len(found) - len(readable)
            found = readable
        for path in found:
            file_format(path)
            files[path.resolve()] = None
    return LocalSource(", ".join(config.source), tuple(files), config.field, config.text_unit, left_out)


def _files(entry: str) -> list[Path]:
    if entry == BUILTIN:
        return builtin_files()
    path = Path(entry).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        found = [inner for inner in sorted(path.rglob("*")) if inner.is_file() and not _hidden(inner, path)]
    else:
        found = [match for match in map(Path, sorted(glob.glob(str(path), recursive=True))) if match.is_file()]
    if not found:
        raise _nothing_there(entry, path)
    return found


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _nothing_there(entry: str, path: Path) -> DataError:
    if path.is_dir():
        return DataError(f"--data.source {entry}: the folder holds no file")
    if glob.has_magic(entry):
        return DataError(f"--data.source {entry}: no file matches this pattern (working folder: {Path.cwd()})")
    if not path.parent.is_dir():
        return DataError(f"--data.source {entry}: no such file, and no folder {path.parent}")
    neighbours = [neighbour.name for neighbour in path.parent.iterdir()]
    hint = did_you_mean(path.name, neighbours)
    return DataError(f"--data.source {entry}: no such file in {path.parent.resolve()}{hint}")
