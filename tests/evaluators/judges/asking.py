"""A judge of a server, asked many times at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from evaluators.judges import Backend, make
from evaluators.messages import Call, Message, Place, Reply, Sampling
from evaluators.samples import Pair
from tests.evaluators.server import Server

IN_FLIGHT = 32
"""The default concurrency."""


def call(query: str = "q", *, schema: bool = False, **sampling: Any) -> Call:
    """A review as the network asks for it: a system message and a user's."""
    drawn = Sampling(**{"temperature": 0.0, "max_tokens": 256, **sampling})
    messages = (Message("system", "You are strict."), Message("user", query))
    pair = Pair(query, query, "a", "b")
    return Call(messages, drawn, Place(pair, "review"), schema={"type": "object"} if schema else None, scale=(1, 9))


def judge_of(server: Server, name: str = "openai:m", **backend: Any) -> Any:
    return make(name, Backend(**{"base_url": server.url, "timeout_s": 20.0, **backend}))


def ask_all(judge: Any, *rounds: Sequence[Call]) -> list[list[Reply | BaseException]]:
    """Every call of a round at once, one round after the other."""

    async def run() -> list[list[Reply | BaseException]]:
        try:
            return [await asyncio.gather(*map(judge.ask, calls), return_exceptions=True) for calls in rounds]
        finally:
            await judge.close()

    return asyncio.run(run())


def ask(judge: Any, asked: Call | None = None) -> Any:
    """The reply, or the error."""
    return ask_all(judge, [asked or call()])[0][0]
