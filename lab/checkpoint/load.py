"""The one loader of models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

import normalization  # noqa: F401  (registers our model types)
from lab.checkpoint.search import resolve
from lab.errors import RunError


def load_model(path: str | Path, *, dtype: str | torch.dtype = "auto", **options: Any) -> PreTrainedModel:
    """Load a causal LM with its scheme: the one loader of this project.

    Args:
        path: a checkpoint of ours, a run folder (its newest whole checkpoint), or any Hugging Face folder or hub name.
        dtype: of the weights; `auto` is what was saved.
        **options: for `AutoModelForCausalLM.from_pretrained`, such as `device_map` or `attn_implementation`.

    Raises:
        RunError: nothing that can be loaded, an incomplete or damaged checkpoint, or weights that are missing,
            superfluous or of another shape.
    """
    source = resolve(str(path))
    folder = Path(source)
    try:
        model, report = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, output_loading_info=True, **options)
    except OSError as error:
        what = "holds no checkpoint" if folder.is_dir() else "is no folder here, and no name that the hub answers to"
        raise RunError(f"{path} {what}: {str(error).splitlines()[0]}") from error
    faults = {kind: sorted(map(str, keys)) for kind, keys in report.items() if keys and kind != "error_msgs"}
    if faults:
        listed = "; ".join(f"{kind.replace('_', ' ')}: {', '.join(keys[:4])}" for kind, keys in faults.items())
        raise RunError(f"{source} does not hold the weights of its config: {listed}")
    return model
