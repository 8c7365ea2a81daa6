"""Folders that are built once and shared by processes and machines, whichever comes first."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import xxhash
from filelock import FileLock

from lab.data.errors import DataError
from lab.hashing import file_hash

logger = logging.getLogger(__name__)

META = "meta.json"


def content_key(**parts: Any) -> str:
    """A 128-bit key, in hexadecimal, of JSON-serialisable parts."""
    return xxhash.xxh3_128_hexdigest(json.dumps(parts, sort_keys=True).encode())


def build_once(directory: Path, build: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """Make `directory` by `build` unless a whole one is there; return what `build` returned when it was made.

    `build` writes its files into an empty folder and returns a JSON-serialisable dict. That folder becomes
    `directory` by one rename, with the sizes and hashes of all files in `meta.json`, so a build that is
    interrupted leaves nothing that looks complete, and a file that was damaged later is noticed and the
    folder rebuilt. Processes that come while one builds wait for it.

    Raises:
        DataError: the folder cannot be written, or the disk is full.
    """
    content = _read(directory)
    if content is not None:
        return content
    lock = FileLock(f"{directory}.lock")
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise _unwritable(directory, error) from error
    try:
        content = _read(directory)
        return _build(directory, build) if content is None else content
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise _unwritable(directory, error) from error
    finally:
        lock.release()


def _unwritable(directory: Path, error: OSError) -> DataError:
    return DataError(
        f"cannot write the data cache {directory.parent}: {error.strerror}. Choose another place with --data.cache-dir"
    )


def _build(directory: Path, build: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    prefix = f".{directory.name}.{socket.gethostname()}."
    # We hold the lock, so on this machine nobody is writing here: these are left over from killed processes.
    # Another machine's are left alone, because not every network file system carries locks across machines.
    for leftover in directory.parent.glob(f"{prefix}*"):
        shutil.rmtree(leftover)
    beside = directory.parent / f"{prefix}{os.getpid()}"
    beside.mkdir()
    try:
        content = build(beside)
        files = {
            path.name: {"bytes": path.stat().st_size, "xxh3": file_hash(path)} for path in sorted(beside.iterdir())
        }
        (beside / META).write_text(json.dumps({"files": files, "content": content}, indent=1))
        if directory.exists():
            directory.rename(f"{beside}.replaced")
        beside.rename(directory)
    except OSError:
        finished_elsewhere = _read(directory)
        if finished_elsewhere is None:
            raise
        content = finished_elsewhere
    finally:
        for path in (beside, Path(f"{beside}.replaced")):
            shutil.rmtree(path, ignore_errors=True)
    return content


def _read(directory: Path) -> dict[str, Any] | None:
    """What `build` returned for a whole folder; None if there is none, or if a file is missing or damaged."""
    try:
        meta = json.loads((directory / META).read_text())
        for name, expected in meta["files"].items():
            path = directory / name
            if path.stat().st_size != expected["bytes"] or file_hash(path) != expected["xxh3"]:
                raise ValueError(f"{name} is not what was written")
        content = meta["content"]
    except (FileNotFoundError, NotADirectoryError) as error:
        if directory.exists():
            logger.warning("cache %s is incomplete (%s is missing): building it again", directory, error.filename)
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        logger.warning("cache %s is damaged (%s): building it again", directory, error)
        return None
    assert isinstance(content, dict)
    return content
