"""What goes to a judge and comes back from it: messages, how a reply is drawn, the reply."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from evaluators.reading.thoughts import split, whole
from evaluators.samples import Pair
from evaluators.values import Order, Review, Role, Usage


@dataclass(frozen=True)
class Message:
    """One message of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


def folded(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The system message at the head of the first one after it, for templates and servers that know no such role."""
    if len(messages) < 2 or messages[0].role != "system":
        return messages
    head, first, *rest = messages
    return (Message(first.role, f"{head.content}\n\n{first.content}"), *rest)


@dataclass(frozen=True)
class Sampling:
    """How a reply is drawn."""

    temperature: float | None
    """None: whatever the server's default is."""
    max_tokens: int
    seed: int | None = None
    probabilities: bool = False
    """Ask for token probabilities, to take the expected score."""


@dataclass(frozen=True)
class Place:
    """Where in the network a call belongs. Judges that talk to a model do not see it."""

    pair: Pair
    task: Literal["roles", "review"]
    layer: int = 0
    neuron: int = 0
    order: Order = "12"
    index: int = 0
    """Which of a neuron's reviews, from 0."""
    role: Role | None = None
    seen: tuple[Review, ...] = ()


@dataclass(frozen=True)
class Call:
    """One question to a judge."""

    messages: tuple[Message, ...]
    sampling: Sampling
    place: Place
    attempt: int = 0
    """0, and one more each time that an unusable reply is asked again."""
    schema: dict[str, Any] | None = None
    """JSON schema of the reply; None: free text."""
    scale: tuple[int, int] = (1, 10)
    draw: int = 0
    """How many equal questions came before it in its layer: neurons with one prompt are several draws, not copies."""


@dataclass(frozen=True)
class Reply:
    """What a judge said. Thoughts are split off its text as it is made, whichever judge made it and in what form."""

    text: str
    usage: Usage
    finish: str | None = None
    """Why it ended: "stop", or "length" where it was cut off."""
    expected: tuple[float, ...] | None = None
    """Expected scores under the token probabilities, in the order shown; None where the judge gives none."""
    thoughts: str = ""
    """What the model thought before it answered: kept, and read by nobody."""
    unclosed: bool = False
    """It ends within its thoughts."""
    adapted: tuple[str, ...] = ()
    """What was not sent as asked for, because the server does not take it: "no seed"."""

    def __post_init__(self) -> None:
        said = split(self.text)
        object.__setattr__(self, "text", said.text)
        object.__setattr__(self, "thoughts", "\n".join(filter(None, (whole(self.thoughts), said.thoughts))))
        object.__setattr__(self, "unclosed", self.unclosed or said.unclosed)
