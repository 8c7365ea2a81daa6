"""Modes of files: what safetensors writes belongs to its owner alone (0600), whatever the umask allows."""

from __future__ import annotations

import os
from pathlib import Path


def as_umask(path: Path) -> None:
    """Give a file, or every safetensors file below a folder, the mode that any new file has."""
    umask = os.umask(0o077)
    os.umask(umask)
    for file in [path] if path.is_file() else path.rglob("*.safetensors"):
        file.chmod(0o666 & ~umask)
