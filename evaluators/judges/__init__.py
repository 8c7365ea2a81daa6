"""Who reviews. A new backend is one new file in this folder: a class and its registration.

A judge is named `scheme:argument`: `openai:gpt-4o`, `hf:PATH`, `scripted:FILE`, `simulated:position=0.8`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar

from evaluators.errors import ConfigError, UserError
from evaluators.messages import Call, Reply
from evaluators.registry import Registry, told
from evaluators.values import Usage

Kind = Literal["call", "rate", "outage", "context", "moderated"]
"""Why a call gave no reply: it failed by itself, the server asks for fewer calls, the server may be down, the prompt is
longer than the model takes, or a filter withheld prompt or reply."""


class CallError(Exception):
    """A call that gave no reply."""

    def __init__(
        self,
        reason: str,
        *,
        kind: Kind = "call",
        retry: bool | None = None,
        retry_after_s: float | None = None,
        usage: Usage | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.kind = kind
        self.retry = kind in ("rate", "outage") if retry is None else retry
        """Another try may succeed."""
        self.retry_after_s = retry_after_s
        """Seconds that the server asks to wait; at most a day."""
        self.usage = usage
        """Where the reply was useless but was billed."""


class NoSchemaError(CallError):
    """The call can be made without a JSON schema only."""

    def __init__(self, reason: str, *, lasting: bool = True) -> None:
        super().__init__(reason)
        self.lasting = lasting
        """The server takes none at all; else it was this one call that failed under its schema."""


@dataclass(frozen=True)
class Backend:
    """What a judge may be told beside its argument."""

    base_url: str | None = None
    url_flag: str = "--base-url"
    """Who named it, for errors."""
    key_env: str | None = "OPENAI_API_KEY"
    """Environment variable that holds the key; None: none is sent."""
    timeout_s: float = 120.0
    seed: int = 0
    batch: int = 8
    device: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    """Free options, passed through: they enter the identity."""
    context: int | None = None
    """Tokens of prompt and reply together, where the user knows."""
    needs_key: bool = True
    """False where no call will be made."""


@dataclass(frozen=True)
class Abilities:
    """What a server says that it can do; None: it does not say."""

    context: int | None = None
    """Tokens of prompt and reply together; a prompt is not cut where it is unknown."""
    structured: bool | None = None
    """Whether it follows a JSON schema."""
    answered: bool = True
    """False where the server could not be asked now, so that it is worth asking again."""


class Judge(Protocol):
    """A backend. `ask` may be called many times at once."""

    name: str
    """As in results and prices: the model, or the scheme and argument."""
    identity: str
    """What the cache keeps replies apart by: model, server, files."""
    worth_caching: bool
    """False where making a reply is cheaper than looking it up."""
    concurrency: int | None
    """Calls at once that it gains from; None: as many as allowed."""

    async def ask(self, call: Call) -> Reply:
        """One reply.

        Raises:
            CallError: there is none.
            RunError: no call of this run can succeed (wrong key, unknown model); says what to do.
        """

    async def abilities(self) -> Abilities:
        """What it can do, asked of the server where there is one. Never raises CallError."""

    def coordinates(self, call: Call) -> tuple[object, ...]:
        """What beside the messages and the sampling decides its reply."""

    def count_tokens(self, text: str) -> int:
        """Tokens of a text; an upper bound where the tokenizer is not at hand."""

    async def close(self) -> None:
        """Let go of connections and memory."""


_PARTS = (*Judge.__annotations__, "ask", "abilities", "coordinates", "count_tokens", "close")

Maker = Callable[[str, Backend], Judge]
judges: Registry[Maker] = Registry("judge", "depthlab.judges", __name__, __path__)
MakerT = TypeVar("MakerT", bound=Maker)


def judge(scheme: str) -> Callable[[MakerT], MakerT]:
    """Register the decorated class under the scheme of its names."""

    def register(maker: MakerT) -> MakerT:
        judges.add(scheme, maker)
        return maker

    return register


def make(name: str, backend: Backend) -> Judge:
    """The judge called `scheme:argument`.

    Raises:
        ConfigError: no such scheme, an argument that it cannot use, or a plug-in that is broken or no judge.
    """
    scheme, colon, argument = name.partition(":")
    if not colon:
        known = ", ".join(f"{known}:..." for known in judges.names())
        raise ConfigError(f"--judge {name}: write SCHEME:NAME, one of {known}")
    maker, origin = judges.get(scheme, flag="--judge"), judges.origin(scheme)
    if not origin:
        return maker(argument, backend)
    try:
        made = maker(argument, backend)
    except UserError:
        raise
    except Exception as error:
        raise ConfigError(f"--judge {name}: {told(error)}") from error
    if missing := [part for part in _PARTS if not hasattr(made, part)]:
        raise ConfigError(f"--judge {name}: the plug-in's {type(made).__name__} has no {', '.join(missing)}")
    # What its code of another day replied is not what it replies.
    made.identity = f"{made.identity} ({origin})"
    return made


def refuse_options(judge: str, backend: Backend) -> None:
    """Raises ConfigError where a judge that knows no options is given some: they would do nothing."""
    if backend.options:
        raise ConfigError(f"--judge {judge}: takes no --option ({', '.join(backend.options)})")


def estimated_tokens(text: str) -> int:
    """Tokens of a text without its tokenizer: one for 3 bytes of UTF-8.

    English has 4 to 5 bytes a token, code and other languages fewer; rather too many are counted than too few.
    """
    return -(-len(text.encode()) // 3)
