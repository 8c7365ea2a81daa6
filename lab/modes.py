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
    """Refuse a place where no folder can be made, nor anything be written in it.

    Args:
        flag: what names it, for the message.
        path: the folder that will be written.

    Raises:
        RunError: it or part of its path is a file, or a link that leads nowhere; or there is no permission.
    """
    try:
        for part in (path, *path.parents):
            if part.is_symlink() and not part.exists():
                raise RunError(
                    f"{flag} {path}: {part} is a link to {part.readlink()}, which is not there; name another place"
                )
        above = next(part for part in (path, *path.absolute().parents) if part.exists())
    except OSError as error:
        raise RunError(f"{flag} {path}: {error.strerror or error}; name another place") from error
    if not above.is_dir():
        what = "a file" if above.is_file() else "a device"
        raise RunError(f"{flag} {path}: {above} is {what}, no folder; name another place")
    if not os.access(above, os.W_OK | os.X_OK):
        raise RunError(f"{flag} {path}: no permission to write in {above}; name another place")


def refuse_taken(out: Path) -> None:
    """Refuse an --out that is there already, or where no folder can be made.

    Raises:
        RunError: which of the two.
    """
    if out.exists():
        raise RunError(f"--out {out}: exists already and is never overwritten; name a folder that is not there yet")
    check_place("--out", out)
