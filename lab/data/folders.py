"""The files of a folder that are text to train on, linked ones included, and those that are left out, and why."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from lab.data.opening import unreadable
from lab.data.readers import UNREADABLE, kind_suffix

_ABOUT = re.compile(r"(readme|licen[sc]e|copying|notice)([-_.].*)?")
_METADATA = frozenset({"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"})


def files_of(folder: Path) -> tuple[list[Path], list[tuple[str, Path]]]:
    """What a folder holds, in sorted order: files to read, and (reason, file or folder) of what is left out.

    Links are followed, and keep their own names. What is hidden is left out as a glob does, and besides what is about
    the data rather than of it, and what is not read.

    Raises:
        DataError: a folder that may not be read.
    """
    found, left_out = [], []
    for path in sorted(_walk(folder, ())):
        reason = _reason_against(path, folder)
        if reason is None:
            found.append(path)
        else:
            left_out.append((reason, path))
    return found, left_out


def _walk(folder: Path, above: tuple[tuple[int, int], ...]) -> Iterator[Path]:
    """Files below, and hidden folders as themselves; a link to a folder that it is in is not gone through again."""
    try:
        status = folder.stat()
        entries = list(os.scandir(folder))
    except OSError as error:
        raise unreadable(folder, error) from error
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    for entry in entries:
        path = folder / entry.name
        if not entry.name.startswith(".") and os.path.isdir(path):
            yield from _walk(path, (*above, here))
        else:
            yield path


def _reason_against(path: Path, folder: Path) -> str | None:
    name = path.name.lower()
    if name.startswith("."):
        return "hidden file or folder"
    if not path.is_file():
        return "link that leads nowhere" if path.is_symlink() else "no regular file"
    if kind_suffix(path) in UNREADABLE:
        return "unsupported file type"
    if name in _METADATA:
        return "metadata of a data set"
    if _ABOUT.fullmatch(name) and kind_suffix(path) in ("", ".md", ".txt", ".rst"):
        return "about the data"
    return None
