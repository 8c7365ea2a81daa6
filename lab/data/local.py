"""Local files as a source, including the built-in corpus."""

from __future__ import annotations

import errno
import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from lab.data.builtin import builtin_files
from lab.data.cache import content_key
from lab.data.config import DataConfig, TextUnit
from lab.data.documents import Document, Skipped, as_document, no_documents
from lab.data.errors import DataError, did_you_mean
from lab.data.folders import files_of
from lab.data.opening import readable, unreadable
from lab.data.progress import bar
from lab.data.readers import KNOWN, file_format, read_values
from lab.hashing import file_hash

BUILTIN = "builtin"


@dataclass(frozen=True)
class LocalSource:
    """Files, read in order, under the names by which they were given: a link's own, not its target's."""

    name: str
    files: tuple[Path, ...]
    field: str
    text_unit: TextUnit
    left_out: tuple[tuple[str, str], ...] = ()
    """(reason, name) of what folders and patterns hold besides; counted as skipped."""

    def fingerprint(self, *, progress: bool) -> str:
        """A key of everything that decides the documents: contents and formats of the files, in order."""
        digests = []
        with bar("hashing files", progress=progress, unit="B", total=self.bytes) as shown:
            for path in self.files:
                with readable(path):
                    status = path.stat()
                    digest = _digest(path, status.st_size, status.st_mtime_ns)
                digests.append([file_format(path), path.suffix, digest])
                shown.update(status.st_size)
        return content_key(files=digests, left_out=self.left_out, field=self.field, text_unit=self.text_unit)

    def documents(self, skipped: Skipped) -> Iterator[Document]:
        """Every usable document once, in order; the others are counted in `skipped`.

        Raises:
            DataError: a file is damaged, the field does not exist, or nothing was usable.
        """
        for reason, name in self.left_out:
            skipped[reason] += 1
            skipped.first.setdefault(reason, name)
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
        or os.path.lexists(entry)
    )


def local_source(config: DataConfig) -> LocalSource:
    """The files that the entries of `--data.source` name, each once; folders and globs are sorted.

    Raises:
        DataError: an entry names nothing, or a file of a kind that is not read.
    """
    files: dict[str, Path] = {}
    left_out: list[tuple[str, str]] = []
    for entry in config.source:
        found, besides = _files(entry)
        left_out += [(reason, path.name) for reason, path in besides]
        for path in found:
            file_format(path)
            files.setdefault(os.path.realpath(path), path.absolute())
    return LocalSource(", ".join(config.source), tuple(files.values()), config.field, config.text_unit, tuple(left_out))


def _files(entry: str) -> tuple[list[Path], list[tuple[str, Path]]]:
    """What an entry names, and what a folder holds besides."""
    if entry == BUILTIN:
        return builtin_files(), []
    path = Path(os.path.expanduser(entry))
    if os.path.isdir(path):
        found, left_out = files_of(path)
        if not found:
            raise _nothing_to_read(entry, left_out)
        return found, left_out
    matches = [path] if os.path.isfile(path) else [*map(Path, sorted(glob.glob(str(path), recursive=True)))]
    found = [match for match in matches if match.is_file()]
    closed = _closed_folders(path) if glob.has_magic(entry) else []
    if not found:
        raise (
            unreadable(closed[0], PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
            if closed
            else _nothing_there(entry, path)
        )
    return found, [("folder without permission to read it", folder) for folder in closed]


def _closed_folders(pattern: Path) -> list[Path]:
    """The folders that a pattern goes through, as far as they are closed to us; `glob` passes over them in silence."""
    closed: set[str] = set()
    for count in range(1, len(pattern.parts)):
        needed = os.X_OK | (os.R_OK if glob.has_magic(pattern.parts[count]) else 0)
        folders = filter(os.path.isdir, glob.glob(str(Path(*pattern.parts[:count])), recursive=True))
        closed.update(folder for folder in folders if not os.access(folder, needed))
    return [Path(folder) for folder in sorted(closed)]


def _nothing_to_read(entry: str, left_out: Sequence[tuple[str, Path]]) -> DataError:
    if not left_out:
        return DataError(f"--data.source {entry}: the folder holds no file")
    first = {reason: path.name for reason, path in reversed(left_out)}
    listed = ", ".join(
        f"{count} {reason} (first {first[reason]})"
        for reason, count in Counter(reason for reason, _ in left_out).items()
    )
    return DataError(f"--data.source {entry}: the folder holds no file of text to train on; left out: {listed}")


def _nothing_there(entry: str, path: Path) -> DataError:
    if os.path.islink(path):
        return DataError(f"--data.source {entry}: a link to {os.readlink(path)}, which is not there; fetch that file")
    if glob.has_magic(entry):
        return DataError(f"--data.source {entry}: no file matches this pattern (working folder: {Path.cwd()})")
    if not os.path.isdir(path.parent):
        return DataError(f"--data.source {entry}: no such file, and no folder {path.parent}")
    try:
        neighbours = os.listdir(path.parent)
    except OSError as error:
        return unreadable(path.parent, error)
    hint = did_you_mean(path.name, neighbours)
    return DataError(f"--data.source {entry}: no such file in {path.parent.resolve()}{hint}")
