"""Who may read and write: modes of files, and places where nothing can be written, told before any work is done."""

from __future__ import annotations

import os
from pathlib import Path

from lab.errors import RunError

_LOADED = (".safetensors", ".bin", ".gguf", ".model", "config.json", ".index.json", "tokenizer.json", "vocab.json")


def as_umask(path: Path) -> None:
    """Give a file, or every safetensors file below a folder, the mode of any new file: safetensors writes 0600."""
    umask = os.umask(0o077)
    os.umask(umask)
    for file in [path] if path.is_file() else path.rglob("*.safetensors"):
        file.chmod(0o666 & ~umask)


def check_readable(folder: Path) -> None:
    """Refuse the folder of a model or tokenizer with a file that may not be read: libraries take it for absent.

    Raises:
        RunError: there is no permission; names the folder or file.
    """
    readable = os.access(folder, os.R_OK | os.X_OK)
    files = (path for path in folder.iterdir() if path.name.endswith(_LOADED)) if readable else ()
    closed = next((path for path in sorted(files) if path.is_file() and not os.access(path, os.R_OK)), None)
    if not readable or closed is not None:
        raise RunError(f"{closed or folder}: no permission to read it; ask for the permission, or name another place")


def check_place(flag: str, path: Path) -> None:
    """Refuse a place where no file or folder can be made.

    Args:
        flag: what names it, for the message.
        path: what will be written.

    Raises:
        RunError: part of the path is a file, or there is no permission.
    """
    try:
        above = next(part for part in (path, *path.absolute().parents) if part.exists())
    except OSError as error:
        raise RunError(f"{flag} {path}: {error.strerror or error}; name another place") from error
    if not above.is_dir():
        if above != path:
            raise RunError(f"{flag} {path}: {above} is a file, no folder; name another place")
    elif not os.access(above, os.W_OK | os.X_OK):
        raise RunError(f"{flag} {path}: no permission to write in {above}; name another place")
