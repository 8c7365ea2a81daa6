"""Model, probe, options and processes of one measurement, and the promise that the model stays as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lab.diagnostics.engine.probe import Batch, Probe
from lab.diagnostics.engine.processes import Processes
from lab.diagnostics.options import Options
from lab.errors import RunError
from normalization.api import family_of
from normalization.families import FAMILIES, Family

WITHOUT_FLOAT64 = frozenset({"mps"})
"""Types of devices."""


def check_family(config: Any) -> None:
    """Check that diagnostics know where models of a config keep their layers.

    Raises:
        RunError: an encoder, or a family that is not in the table; says what is missing.
    """
    if getattr(config, "is_encoder_decoder", False):
        raise RunError(
            f"this {config.model_type!r} model has an encoder beside its decoder; diagnostics are for decoder-only "
            "causal LMs"
        )
    if config.model_type.removeprefix("depthlab_") not in FAMILIES:
        raise RunError(
            f"diagnostics do not know where a {config.model_type!r} model keeps its layers: it has no entry in "
            f"normalization/families.py, which would name its decoder layers, their attention and MLP, the norms and "
            f"the weight matrices. Families: {', '.join(FAMILIES)}"
        )


def family(model: nn.Module) -> Family:
    """Where a model keeps its layers, from the one table of families.

    Raises:
        RunError: as `check_family`.
    """
    check_family(model.config)
    return family_of(model)


def has_float64(device: torch.device) -> bool:
    """Whether a device computes in float64, in which the diagnostics keep their sums: Apple's GPUs (MPS) do not."""
    return device.type not in WITHOUT_FLOAT64


@dataclass(frozen=True)
class Session:
    """What the diagnostics work with."""

    model: PreTrainedModel
    probe: Probe
    options: Options
    processes: Processes

    @property
    def family(self) -> Family:
        """The model's entry in the table of families."""
        return family(self.model)

    @property
    def layers(self) -> nn.ModuleList:
        """The decoder layers, first to last."""
        return self.family.decoder_layers(self.model)

    @property
    def depth(self) -> int:
        """L."""
        return len(self.layers)

    @property
    def width(self) -> int:
        """Features of the residual stream."""
        return int(self.model.config.hidden_size)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    def batches(self, blocks: int | None = None) -> Iterator[Batch]:
        """This process's batches of the probe, or of its first `blocks` blocks.

        What a batch holds does not depend on the number of processes: they take turns.
        """
        total = len(self.probe) if blocks is None else min(blocks, len(self.probe))
        starts = range(0, total, self.options.batch)
        for start in starts[self.processes.rank :: self.processes.world]:
            yield self.probe.batch(slice(start, min(start + self.options.batch, total)), self.device)

    def decode(self, stream: Tensor) -> Tensor:
        """Logits (..., V), in float32, of a residual stream (..., D) before the final norm."""
        norm = self.model.get_submodule(self.family.final_norm)
        head: Any = self.model.get_output_embeddings()
        return head(norm(stream)).float()


@contextmanager
def undisturbed(model: PreTrainedModel) -> Iterator[None]:
    """Evaluate a model inside; afterwards its training flags, requires_grad flags, attention implementation and the
    random state are what they were. Compiled code is not used inside: it would not see hooks."""
    training = [(module, module.training) for module in model.modules()]
    learning = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    attention = model.config._attn_implementation
    try:
        with torch.random.fork_rng(), torch.compiler.set_stance("force_eager"):
            model.eval()
            yield
    finally:
        for module, flag in training:
            module.training = flag
        for parameter, flag in learning:
            parameter.requires_grad_(flag)
        use_attention(model, attention)


def use_attention(model: PreTrainedModel, implementation: str) -> bool:
    """Switch the implementation of attention; returns whether the model did."""
    if model.config._attn_implementation != implementation:
        model.set_attn_implementation(implementation)
    return model.config._attn_implementation == implementation
