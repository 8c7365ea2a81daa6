"""What a run needs of a judge, asked of one: for the tests of those who write their own."""

from __future__ import annotations

import asyncio

from evaluators.judges import Abilities, Judge
from evaluators.messages import Call, Message, Place, Reply, Sampling
from evaluators.samples import Pair

_PAIR = Pair("check", "Which is right?", "two and two is four", "two and two is five")
_PROMPT = (
    "Which is right?\nAssistant 1: two and two is four\nAssistant 2: two and two is five\nReply in this format:\n"
    "Evaluation evidence: <your explanation>\nScore of Assistant 1: <score>\nScore of Assistant 2: <score>"
)


def check(judge: Judge) -> Reply:
    """Ask a judge as a run does, several times at once, and close it. Returns a reply.

    Raises:
        AssertionError: what it does not do as `Judge` says.
        CallError: it gave no reply.
    """
    for name in ("name", "identity"):
        value = getattr(judge, name)
        assert isinstance(value, str) and value.strip(), f"{name} is {value!r}, not a text"
    assert isinstance(judge.worth_caching, bool), "worth_caching is not True or False"
    most = judge.concurrency
    assert most is None or (isinstance(most, int) and most > 0), f"concurrency is {most!r}: a number of calls, or None"
    count = judge.count_tokens(_PROMPT)
    assert isinstance(count, int) and count > 0, f"count_tokens gives {count!r} for a text"
    messages = (Message("system", "You are strict."), Message("user", _PROMPT))
    call = Call(messages, Sampling(0.0, 256), Place(_PAIR, "review"))
    same = repr(judge.coordinates(call)) == repr(judge.coordinates(call))
    assert same, "coordinates differ between equal calls, so that the cache would never have a reply"

    async def ask() -> tuple[Abilities, list[Reply]]:
        try:
            return await judge.abilities(), await asyncio.gather(*(judge.ask(call) for _ in range(4)))
        finally:
            await judge.close()

    abilities, replies = asyncio.run(ask())
    assert isinstance(abilities, Abilities), f"abilities gives {abilities!r}"
    for reply in replies:
        assert isinstance(reply, Reply), f"ask gives {reply!r}"
        assert reply.text.strip(), "a reply is empty: raise CallError where there is none"
        used = (reply.usage.prompt, reply.usage.completion)
        assert min(used) > 0, f"usage is {used}: where the tokens are not known, estimate them and say estimated=True"
        assert reply.finish in (None, "stop", "length"), f"finish is {reply.finish!r}"
    return replies[0]
