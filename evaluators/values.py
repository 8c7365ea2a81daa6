"""What comes out of the network, as values: roles, reviews, failures, verdicts, and the record of each call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

Order = Literal["12", "21"]
"""Which response is shown first: "12" is the sample's own order."""


@dataclass(frozen=True)
class Role:
    """A neuron's perspective."""

    name: str
    focus: str = ""
    standing: bool = False
    """One of the family's own, because the sample's were too few."""

    @property
    def text(self) -> str:
        """As prompts show it."""
        return f"{self.name}: {self.focus}" if self.focus else self.name


@dataclass(frozen=True)
class Usage:
    """Tokens of a call, as the server reports them."""

    prompt: int
    completion: int
    cached_prompt: int = 0
    """Part of `prompt` that the server had already processed, which some bill at another price."""
    estimated: bool = False
    """The server reported nothing plausible; these are our estimate."""
    reasoning: int = 0
    """Part of `completion` that was thought and not said."""


@dataclass(frozen=True)
class Record:
    """A call as it stands in the results."""

    key: str
    judge: str
    text: str | None
    usage: Usage | None
    cached: bool
    cost: str | None
    """In USD, exact; None: unpriced, or the call came from the cache and cost nothing now."""
    thoughts: str = ""
    """Of the reply: kept, and read by nobody."""
    adapted: tuple[str, ...] = ()
    """What was not sent as asked for, because the server does not take it: "no seed"."""


@dataclass(frozen=True)
class Review:
    """A neuron's scores of both responses, with its evidence."""

    layer: int
    neuron: int
    order: Order
    index: int
    role: str
    scores: tuple[float, ...]
    """Of response 1, then of response 2, whatever the order in which they were shown. One where one is judged."""
    evidence: str
    confidence: float | None = None
    calls: tuple[Record, ...] = ()
    shortened: int = 0
    """Characters left out of the prompt so that it fits the judge's context."""


@dataclass(frozen=True)
class Failure:
    """A review, or the roles, that could not be had. Never a number."""

    layer: int
    neuron: int
    order: Order
    index: int
    kind: Literal["unparsed", "probabilities", "call", "context", "moderated", "internal"]
    reason: str
    calls: tuple[Record, ...] = ()
    shortened: int = 0
    trace: str | None = None
    """Where an exception came from that none should raise."""


Layer = Sequence[Review | Failure]


@dataclass(frozen=True)
class Verdict:
    """What a network says of a sample."""

    winner: int | None
    """1, 2 or 0 (tie); None: unscored, or one response only."""
    margin: float | None
    """In favour of response 1; its unit is the aggregation's: points of the scale, or a share of the votes."""
    scores: tuple[float, ...] | None
    """Aggregated, of response 1 and 2."""
    scored: int
    """Reviews that the verdict rests on."""
    unscored: int
    """Reviews that it should rest on, and that failed."""
    reason: str | None = None
    """Why there is no verdict."""


@dataclass(frozen=True)
class Judgement:
    """A sample's whole network."""

    roles: tuple[Role, ...]
    roles_calls: tuple[Record, ...]
    layers: tuple[Layer, ...]
    verdict: Verdict
    shortened: int = 0
    failures: tuple[Failure, ...] = field(default=())
    """Of the roles; those of reviews stand in their layers."""
