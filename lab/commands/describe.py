"""`depthlab describe CHECKPOINT_OR_RUN`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from evaluators import command_line


@dataclass(frozen=True)
class Describe:
    """Print the normalization plan of a model, layer by layer: x is the residual stream, N the layer's norm, F its
    sublayer (attention, then MLP).
    """

    path: Annotated[str, tyro.conf.Positional]
    """A checkpoint, a run folder (its newest checkpoint), or any Hugging Face folder or hub name."""


def main(argv: Sequence[str], *, prog: str) -> int:
    """Exit code 0; 1 where nothing can be loaded; 2 for an impossible setting."""
    from lab.errors import tell
    from lab.light import without_torch
    from lab.quiet import quieten

    wanted = command_line.read(Describe, argv, prog=prog)
    try:
        with without_torch():
            from lab.checkpoint.search import refuse_no_model

            refuse_no_model(wanted.path)
        quieten()
        import normalization
        from lab.checkpoint import load_model

        normalization.describe(load_model(wanted.path))
    except ValueError as error:
        return tell(error)
    return 0
