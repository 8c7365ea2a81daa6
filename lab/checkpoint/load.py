"""The one loader of models."""

from __future__ import annotations

import pickle
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoModelForCausalLM, PreTrainedModel

import normalization  # noqa: F401  (registers our model types)
from lab.checkpoint.search import no_model, resolve
from lab.errors import RunError, UserError

_POINTER = b"version https://git-lfs"
_WRAPPED = {
    "_orig_mod.": "a compiled model was saved; save the model inside it (model._orig_mod)",
    "module.": "a model in DDP or DataParallel was saved; save the model inside it (model.module)",
}


def load_model(
    path: str | Path,
    *,
    dtype: str | torch.dtype = "auto",
    added: Collection[str] = (),
    dropped: Collection[str] = (),
    **options: Any,
) -> PreTrainedModel:
    """Load a causal LM with its scheme: the one loader of this project.

    Args:
        path: a checkpoint of ours, a run folder (its newest whole checkpoint), or any Hugging Face folder or hub name.
        dtype: of the weights; `auto` is what was saved.
        added: names of weights that may be missing, such as the new norms of a scheme; they stay as they are made.
        dropped: names of weights that may be there without use, such as a final norm that a scheme leaves out.
        **options: for `AutoModelForCausalLM.from_pretrained`, such as `config` or `attn_implementation`.

    Raises:
        RunError: nothing that can be loaded, an incomplete or damaged checkpoint, or weights that are missing,
            superfluous or of another shape.
    """
    source = resolve(str(path))
    folder = Path(source)
    _refuse_pointers(folder)
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            source, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )
    except (torch.OutOfMemoryError, UserError):
        raise
    except OSError as error:
        raise RunError(f"{path} {not_loaded(source, error)}") from error
    except (SafetensorError, pickle.UnpicklingError, EOFError) as error:
        damaged = _damaged(folder) or "a file of weights is cut or damaged"
        raise RunError(f"{source} cannot be loaded: {damaged} ({_first_line(error)}); get it anew") from error
    except (ImportError, ValueError, KeyError, RuntimeError) as error:
        raise RunError(f"{path} {not_loaded(source, error)}") from error
    _refuse_misfits(source, report, added, dropped)
    return model


def not_loaded(source: str, error: Exception) -> str:
    """Why transformers loads no config or model from a folder, a file or a name, and what to name instead."""
    place, text = Path(source), _first_line(error).rstrip(".")
    if (why := no_model(source)) is not None:
        return why
    if not place.exists():
        remedy = "check the spelling and the network, or name a checkpoint's folder"
        return f"is no folder here, and no name that the hub answers to: {text}; {remedy}"
    if not place.is_dir():
        return f"is a file that is no model's config: {text}; name a checkpoint's folder"
    if kind := re.search("model type `(.*?)`.*does not recognize", text):
        return f"cannot be loaded: transformers knows no model_type {kind[1]!r} (in its config.json); correct it"
    if "Unrecognized configuration class" in text:
        text = "it is no causal LM (an encoder, or another kind of model)"
    what = "holds no checkpoint" if isinstance(error, OSError) else "cannot be loaded"
    return f"{what}: {text}; name a checkpoint that is whole"


def _refuse_pointers(folder: Path) -> None:
    for pattern in ("*.safetensors", "*.bin", "*.gguf"):
        for file in folder.glob(pattern):
            if file.stat().st_size < 1024 and file.read_bytes().startswith(_POINTER):
                raise RunError(
                    f"{folder} cannot be loaded: {file.name} is a pointer of Git LFS; run git lfs pull there"
                )


def _refuse_misfits(source: str, report: dict[str, Any], added: Collection[str], dropped: Collection[str]) -> None:
    mismatched = [f"{name} {list(there)} for {list(here)}" for name, there, here in report["mismatched_keys"]]
    faults = {
        "missing": sorted(set(report["missing_keys"]) - set(added)),
        "unexpected": sorted(set(report["unexpected_keys"]) - set(dropped)),
        "of another shape": sorted(mismatched),
        "": sorted(map(str, report["error_msgs"])),
    }
    listed = [
        f"{kind}: {', '.join(keys[:4])}{f' and {len(keys) - 4} more' if len(keys) > 4 else ''}"
        for kind, keys in faults.items()
        if keys
    ]
    if listed:
        hints = [
            why for prefix, why in _WRAPPED.items() if any(name.startswith(prefix) for name in faults["unexpected"])
        ]
        raise RunError(f"{source} does not hold the weights of its config: {'; '.join([*listed, *hints])}")


def _damaged(folder: Path) -> str | None:
    """The first file of weights that cannot be opened."""
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, "pt"):
                pass
        except (SafetensorError, OSError):
            return f"{file.name} is {'empty' if not file.stat().st_size else 'cut or damaged'}"
    return None


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
