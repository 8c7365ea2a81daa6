"""Checkpoints of a run, and the one loader of models.

    folder.py     begun beside, then renamed;  manifest.py: what is in it, so that damage is seen;  progress.py
    save.py       all ranks write one together;  restore.py: and go on from one;  optimizer_state.py: its tensors
    search.py     the newest whole one, or the one that is named;  retention.py: which of them stay
    load.py       any checkpoint, of ours or of Hugging Face, as a model

Nothing is imported until it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lab.checkpoint.load import load_model
    from lab.checkpoint.search import find

__all__ = ["find", "load_model"]

_LAZY = {"find": "lab.checkpoint.search", "load_model": "lab.checkpoint.load"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)
