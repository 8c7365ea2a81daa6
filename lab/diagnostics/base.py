"""What a diagnostic is: a reading of a pass that others share, or an experiment with passes of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from lab.diagnostics.engine.block_sums import BlockSums
from lab.diagnostics.engine.session import Session
from lab.diagnostics.engine.streams import Streams
from lab.diagnostics.values import Figure
from lab.errors import UserError


class NotApplicableError(UserError):
    """This diagnostic cannot be measured on this model; the message says why. The others still are."""


class Diagnostic(ABC):
    """One measurement of one model on one probe.

    What it accumulates, it asks for with `block_sums` or `total`: these are added up over processes before `figures`.
    """

    name: ClassVar[str]
    source: ClassVar[str]
    cheap: ClassVar[bool]

    def __init__(self, session: Session) -> None:
        self.session = session
        self._accumulated: list[Tensor] = []
        self.prepare()

    @abstractmethod
    def prepare(self) -> None:
        """Make the accumulators.

        Raises:
            NotApplicableError: not on this model.
        """

    @abstractmethod
    def figures(self) -> dict[str, Figure]:
        """The result, once everything has been seen and added up."""

    def block_sums(self, *shape: int) -> BlockSums:
        """Sums of a quantity of some shape over the tokens of each block of the probe."""
        sums = BlockSums(len(self.session.probe), shape, self.session.device)
        self._accumulated += [sums.sums, sums.counts]
        return sums

    def total(self, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
        """Zeros that are to be filled or added to, each process its part."""
        total = torch.zeros(shape, dtype=dtype, device=self.session.device)
        self._accumulated.append(total)
        return total

    def reduce(self) -> None:
        """Add up what all processes have accumulated."""
        for tensor in self._accumulated:
            self.session.processes.add_up(tensor)


class Reading(Diagnostic):
    """Reads the streams of a pass, batch by batch."""

    sublayers: ClassVar[bool] = False
    """Needs the outputs of attention and MLP."""
    attention_weights: ClassVar[bool] = False
    """Needs `on_attention`, and so the eager implementation of attention."""
    replays: ClassVar[bool] = False
    """Runs layers again, so it shares a pass with the model's own implementation of attention."""

    @abstractmethod
    def update(self, streams: Streams) -> None:
        """Take in one batch."""

    def on_attention(self, layer: int, weights: Tensor | None, streams: Streams) -> None:
        """Attention weights (B, H, T, T) of layer 1..L, None if the implementation returns none; not kept."""


class Experiment(Diagnostic):
    """Has passes of its own, or none."""

    @abstractmethod
    def run(self) -> None:
        """Do it; this process's share of the batches."""
