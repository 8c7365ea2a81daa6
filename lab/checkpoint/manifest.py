"""`manifest.json`, written last: a checkpoint with a manifest is complete, and its hashes tell whether it is whole."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import xxhash

from lab.errors import RunError
from lab.hashing import file_hash

NAME = "manifest.json"
FORMAT = 2


class DamagedError(RunError):
    """A checkpoint that is incomplete or damaged, or cannot be read; says which, and the file."""


class ForbiddenError(DamagedError):
    """A checkpoint, maybe a good one, that this user may not read."""


class OtherFormatError(DamagedError):
    """A checkpoint, maybe a good one, of another version of depthlab."""


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint holds."""

    step: int
    tokens: int
    config_digest: str
    """xxh3-128 of its config.yaml."""
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

    def model_digest(self) -> str:
        """Tells its model from others: of the hashes of weights and config."""
        digest = xxhash.xxh3_128()
        for name, file in sorted(self.files.items()):
            if "/" not in name and name.endswith((".safetensors", "config.json")) and "generation" not in name:
                digest.update(f"{name} {file['xxh3_128']}".encode())
        return digest.hexdigest()


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
        DamagedError: there is none, or it cannot be read; says so with the folder.
    """
    path = folder / NAME
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        found = stored.get("format", 0)
        if found == FORMAT:
            return Manifest(**stored)
    except FileNotFoundError as error:
        raise DamagedError(f"{folder} is incomplete: it has no {NAME}") from error
    except OSError as error:
        raise _unreadable(folder, NAME, error) from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedError(f"{path} cannot be read: {error}") from error
    other = "a newer" if isinstance(found, int) and found > FORMAT else "an older"
    raise OtherFormatError(
        f"{path} cannot be read: written by {other} depthlab (format {found}, this one reads {FORMAT})"
    )


def complete(folder: Path) -> Manifest:
    """Check that every file is there with its size, which costs nothing, not its content.

    Raises:
        DamagedError: incomplete or damaged; names the file.
    """
    return _check(folder)[0]


def verify(folder: Path) -> Manifest:
    """Check that every file is there with the bytes that were written. What was found whole is not read again by the
    same process, as long as no file has changed since.

    Raises:
        DamagedError: incomplete or damaged; names the file.
    """
    manifest, stamps = _check(folder)
    if _WHOLE.get(folder.resolve()) == stamps:
        return manifest
    for name, expected in manifest.files.items():
        try:
            content = file_hash(folder / name)
        except OSError as error:
            raise _unreadable(folder, name, error) from error
        if content != expected["xxh3_128"]:
            raise DamagedError(f"{folder} is damaged: the content of {name} has changed")
    _WHOLE[folder.resolve()] = stamps
    return manifest


_Stamps = list[tuple[str, int, int, int]]
_WHOLE: dict[Path, _Stamps] = {}
"""Checkpoint -> what the file system said of its files when all were found whole."""


def _check(folder: Path) -> tuple[Manifest, _Stamps]:
    manifest, stamps = read(folder), []
    for name in [NAME, *manifest.files]:
        try:
            found = (folder / name).stat()
            expected = manifest.files[name]["bytes"] if name != NAME else found.st_size
        except FileNotFoundError as error:
            raise DamagedError(f"{folder} is damaged: {name} is missing") from error
        except OSError as error:
            raise _unreadable(folder, name, error) from error
        except (KeyError, TypeError) as error:
            raise DamagedError(f"{folder / NAME} cannot be read: what it says of {name} is damaged") from error
        if found.st_size != expected:
            raise DamagedError(f"{folder} is damaged: {name} has {found.st_size} bytes, not {expected}")
        stamps.append((name, found.st_size, found.st_mtime_ns, found.st_ino))
    return manifest, stamps


def _unreadable(folder: Path, name: str, error: OSError) -> DamagedError:
    text = f"{folder} cannot be read: {name}: {error.strerror or error}"
    if isinstance(error, PermissionError):
        return ForbiddenError(f"{text}; ask for the permission, or name another one")
    return DamagedError(text)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
