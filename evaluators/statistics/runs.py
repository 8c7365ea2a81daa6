"""A judged run as samples: what people said, what the judge said, in each order, and every review."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from evaluators.aggregation import aggregate
from evaluators.network import Network
from evaluators.values import Layer, Verdict


@dataclass(frozen=True)
class Sample:
    """A judged pair."""

    id: str
    digest: str
    query: str
    family: str
    dataset: str
    human: int | None
    winner: int | None
    margin: float | None
    reason: str | None
    lengths: tuple[int, int]
    """Characters of both responses."""
    layers: tuple[Layer, ...]
    systems: tuple[str, str] | None = None
    """What wrote the responses, where the data say."""
    language: str = ""
    blank: bool = False
    """A response has no text."""
    cluster: str = ""
    """What is drawn together; the query, if not given."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "cluster", self.cluster or self.query)

    def verdict(self, aggregation: str, tie_margin: float, *, depth: int | None = None) -> Verdict:
        """What another aggregation of the same reviews says, of the first `depth` layers alone."""
        if not self.layers:
            return Verdict(None, None, None, 0, 0, self.reason)
        return aggregate(self.layers[:depth], aggregation, tie_margin)

    def in_order(self, order: str, aggregation: str, tie_margin: float) -> int | None:
        """The winner by layer 1's reviews of one answer order alone: later ones have read those of both orders."""
        own = [item for item in self.layers[0] if item.order == order] if self.layers else []
        return aggregate([own], aggregation, tie_margin).winner if own else None


@dataclass(frozen=True)
class JudgedRun:
    """All samples of a run that compare two responses."""

    path: Path
    network: Network
    """Its shape, as judged."""
    samples: tuple[Sample, ...]
    single: int
    """Samples of one response, which have no winner and are left out."""
    refused: Mapping[str, str] | None = None
    """Number of a line of the data that was passed over -> why; None: not known."""
    guessed: str | None = None
    """Of a run that does not say what its network was, the preset that is taken in its place, as it is today."""

    @property
    def aggregation(self) -> str:
        """The run's own."""
        return self.network.aggregation

    @property
    def tie_margin(self) -> float:
        """The run's own, in the aggregation's unit."""
        return self.network.tie_margin

    @property
    def both_orders(self) -> bool:
        """Whether the judge saw both answer orders."""
        return self.network.both_orders

    @property
    def labelled(self) -> tuple[Sample, ...]:
        """Samples of which people said something."""
        return tuple(sample for sample in self.samples if sample.human is not None)
