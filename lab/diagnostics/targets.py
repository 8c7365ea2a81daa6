"""What `depthlab diagnose PATH` names: checkpoints of a run, a folder, a hub name, a GGUF file; and how to load it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import xxhash
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from lab.checkpoint import load_model, manifest
from lab.checkpoint.folder import FOLDER as CHECKPOINTS
from lab.checkpoint.folder import all_steps, path_of
from lab.errors import RunError
from lab.hashing import file_hash

FOLDER = "diagnostics"
_WEIGHTS = ("*.safetensors", "*.bin", "*.gguf", "config.json")


@dataclass(frozen=True)
class Target:
    """One model to measure."""

    source: str
    """Folder or hub name."""
    name: str
    """Of its record."""
    gguf_file: str | None = None
    run_dir: Path | None = None
    """The run that it is a checkpoint of."""

    def record_path(self, out: str | None) -> Path:
        """Where its record is: in `out`, in `diagnostics/` of its run, or in `diagnostics/` here."""
        folder = Path(out) if out is not None else (self.run_dir or Path()) / FOLDER
        return folder / f"{self.name}.json"

    def load(self, *, dtype: str, device: torch.device, attention: str | None = None) -> PreTrainedModel:
        """The model, in evaluation mode, on a device.

        Raises:
            RunError: it is incomplete, no causal LM, or its weights do not fit its config.
        """
        options: dict[str, Any] = {"gguf_file": self.gguf_file} if self.gguf_file else {}
        if attention is not None:
            options["attn_implementation"] = attention
        return load_model(self.source, dtype=dtype, **options).to(device).eval()

    def tokenizer(self) -> PreTrainedTokenizerBase | None:
        """Its tokenizer, if it has one."""
        try:
            return AutoTokenizer.from_pretrained(
                self.source, **({"gguf_file": self.gguf_file} if self.gguf_file else {})
            )
        except (OSError, ValueError, ImportError, KeyError):
            return None

    def about(self, model: PreTrainedModel) -> dict[str, Any]:
        """What tells this model's weights from others: a digest of the files, or the revision of the hub."""
        folder = Path(self.source)
        about: dict[str, Any] = {"source": self.source, "name": self.name}
        if self.run_dir is not None:
            found = manifest.read(folder)
            return about | {"digest": found.model_digest(), "step": found.step, "tokens": found.tokens}
        if not folder.is_dir():
            return about | {"digest": str(getattr(model.config, "_commit_hash", None))}
        digest = xxhash.xxh3_128()
        paths = (
            [folder / self.gguf_file] if self.gguf_file else sorted(p for like in _WEIGHTS for p in folder.glob(like))
        )
        for path in paths:
            digest.update(f"{path.name} {file_hash(path)}".encode())
        return about | {"digest": digest.hexdigest()}


def is_run(path: str) -> bool:
    """Whether a path is a run's folder."""
    return (Path(path) / CHECKPOINTS).is_dir()


def of_run(run_dir: Path, say: Callable[[str], None]) -> list[Target]:
    """Every whole checkpoint of a run, oldest first; the others are passed over, saying so.

    Raises:
        ForbiddenError: one may not be read.
    """
    targets = []
    for step in all_steps(run_dir):
        folder = path_of(run_dir, step)
        try:
            manifest.read(folder)
        except manifest.ForbiddenError:
            raise
        except ValueError as error:
            say(f"passing over a checkpoint: {error}")
            continue
        targets.append(Target(str(folder), folder.name, run_dir=run_dir))
    return targets


def of_path(path: str) -> Target:
    """A single model: a checkpoint of a run, a GGUF file, a folder, or a hub name.

    Raises:
        RunError: a file of another kind, or a folder of several GGUF files.
    """
    folder = Path(path)
    if folder.suffix == ".gguf":
        if not folder.is_file():
            raise RunError(f"{path}: no such file")
        return Target(str(folder.parent), folder.stem, gguf_file=folder.name)
    if folder.is_file():
        raise RunError(f"{path}: a file, but no .gguf model and no record (.json); give a checkpoint's folder")
    if folder.is_dir():
        folder = folder.resolve()
        files = sorted(folder.glob("*.gguf"))
        if files and not (folder / "config.json").is_file():
            if len(files) > 1:
                raise RunError(f"{path}: holds {len(files)} GGUF files; name one, such as {files[0].name}")
            return Target(str(folder), files[0].stem, gguf_file=files[0].name)
        if folder.parent.name == CHECKPOINTS and (folder / manifest.NAME).is_file():
            return Target(str(folder), folder.name, run_dir=folder.parent.parent)
        return Target(str(folder), folder.name)
    return Target(path, path.replace("/", "--"))
