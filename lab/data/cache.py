"""Folders that are built once and shared by processes and machines, whichever comes first."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import socket
from collections.abc import Callable
from contextlib import suppress
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
        DataError: the folder cannot be read or written, or the disk is full.
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
    for leftover in directory.parent.glob(f"{prefix}*"):
        if not _is_alive(int(leftover.name[len(prefix) :].partition(".")[0])):
            shutil.rmtree(leftover)
    beside = directory.parent / f"{prefix}{os.getpid()}"
    beside.mkdir()
    try:
        content = build(beside)
        files = {
            path.name: {"bytes": path.stat().st_size, "xxh3": file_hash(path)} for path in sorted(beside.iterdir())
        }
        (beside / META).write_text(json.dumps({"files": files, "content": content}, indent=1))
        return _publish(beside, directory, content)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _is_alive(process: int) -> bool:
    """Whether a process of this machine lives; another's folders have its own name in theirs, and are left alone."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return process != os.getpid()


def _publish(beside: Path, directory: Path, content: dict[str, Any]) -> dict[str, Any]:
    """Give `beside` its name, unless a whole folder has it by now: that may be mapped by a run, so it stays.

    Where locks do not reach, others do the same at the same time; each step is one rename, which either happens or
    fails.
    """
    while True:
        try:
            beside.rename(directory)  # fails where a folder with anything in it is
            return content
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        with suppress(FileNotFoundError):
            damaged = directory.stat().st_ino
            found = _read(directory)
            if found is not None:
                return found
            aside = Path(f"{beside}.replaced")
            directory.rename(aside)
            if aside.stat().st_ino == damaged:
                shutil.rmtree(aside, ignore_errors=True)
            else:  # somebody has put a whole one there since
                with suppress(OSError):
                    aside.rename(directory)


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
    except PermissionError as error:
        raise DataError(
            f"cannot read the data cache {error.filename}: {error.strerror}, it may be another user's. Choose another "
            "place with --data.cache-dir"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        logger.warning("cache %s is damaged (%s): building it again", directory, error)
        return None
    assert isinstance(content, dict)
    return content
