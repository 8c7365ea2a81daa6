"""`manifest.json`, written last: a checkpoint with a manifest is complete, and its hashes tell whether it is whole."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lab.hashing import file_hash

NAME = "manifest.json"
FORMAT = 2


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint holds."""

    step: int
    tokens: int
    config_digest: str
    """xxh3-128 of the run's config.yaml."""
    world_size: int
    """Processes that wrote it."""
    sharding: str
    """How they shared the model: replicated, zero1, zero2, zero3, fsdp2."""
    eval_loss: float | None
    """Held-out loss at this step in nats per token, if it was measured."""
    versions: dict[str, str]
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Path in the checkpoint -> `bytes` and `xxh3_128`."""
    format: int = FORMAT


def write(folder: Path, manifest: Manifest) -> None:
    """Hash every file of a checkpoint's folder, bring it to disk, and write the manifest."""
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            files[path.relative_to(folder).as_posix()] = {
                "bytes": path.stat().st_size,
                "xxh3_128": file_hash(path),
            }
            _sync(path)
    text = json.dumps(asdict(manifest) | {"files": files}, indent=2)
    path = folder / NAME
    path.write_text(text, encoding="utf-8")
    _sync(path)
    _sync(folder)


def read(folder: Path) -> Manifest:
    """The manifest of a complete checkpoint.

    Raises:
        ValueError: there is none, or it cannot be read; says so with the folder.
    """
    path = folder / NAME
    if not path.is_file():
        raise ValueError(f"{folder} is incomplete: it has no {NAME}")
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if (found := stored.get("format", 0)) != FORMAT:
            other = "a newer" if found > FORMAT else "an older"
            raise ValueError(f"written by {other} depthlab (format {found}, this one reads {FORMAT})")
        return Manifest(**stored)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def verify(folder: Path) -> Manifest:
    """Check that every file is there with the bytes that were written.

    Raises:
        ValueError: incomplete or damaged; names the file.
    """
    manifest = read(folder)
    for name, expected in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise ValueError(f"{folder} is damaged: {name} is missing")
        if path.stat().st_size != expected["bytes"]:
            raise ValueError(f"{folder} is damaged: {name} has {path.stat().st_size} bytes, not {expected['bytes']}")
        if file_hash(path) != expected["xxh3_128"]:
            raise ValueError(f"{folder} is damaged: the content of {name} has changed")
    return manifest


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
