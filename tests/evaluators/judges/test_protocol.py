"""What every judge must do: reply with text and tokens, fail by the call, know its options, and be cached."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from evaluators.asking.cache import Cache
from evaluators.errors import ConfigError
from evaluators.judges import Abilities, Backend, CallError, judges, make
from evaluators.judges.protocol import check
from evaluators.messages import Call, Reply
from tests.evaluators.fakes import caller
from tests.evaluators.judges.asking import call
from tests.evaluators.server import REVIEW, Server
from tests.evaluators.tiny import TEMPLATE, tiny_model
from tests.evaluators.vendors import prompt_of, refusal

FAILS = "{% if 'fail' in messages[-1].content %}{{ raise_exception('cannot write this') }}{% endif %}"


@dataclass(frozen=True)
class Example:
    """A judge, from which its protocol is tested."""

    name: Callable[[Path, Server], str]
    text: str | None
    """Its reply to `call()`; None: any that is not empty."""
    failure: str | None
    """What it says where the prompt holds "fail"; None: it cannot fail."""
    option: dict[str, Any] | None
    """One that it takes; None: it refuses all."""
    estimated: bool = False
    """Tokens are an estimate."""


def _script(folder: Path, server: Server) -> str:
    path = folder / "script.jsonl"
    path.write_text('{"contains": "fail", "error": "as the script says"}\n{"reply": "hello"}\n')
    return f"scripted:{path}"


def _tiny(folder: Path, server: Server) -> str:
    path = folder / "tiny"
    return f"hf:{path if path.exists() else tiny_model(path, FAILS + TEMPLATE)}"


EXAMPLES = {
    "scripted": Example(_script, "hello", "as the script says", None, estimated=True),
    "simulated": Example(lambda folder, server: "simulated:gap=1", None, None, None),
    "openai": Example(lambda folder, server: "openai:m", REVIEW, "HTTP 400: as the server says", {"top_k": 5}),
    "hf": Example(_tiny, None, "cannot write this", {"x": 1}),
}
"""One for each registered judge."""


@pytest.fixture
def example(request: pytest.FixtureRequest) -> Example:
    return EXAMPLES[request.param]


every = pytest.mark.parametrize("example", judges.names(), indirect=True)


def made(example: Example, folder: Path, server: Server, **backend: Any) -> Any:
    server.manner = lambda body, number: refusal(400, "as the server says") if "fail" in prompt_of(body) else None
    judge = make(example.name(folder, server), Backend(base_url=server.url, **backend))
    judge.worth_caching = True
    return judge


def asked(judge: Any, *calls: Call) -> list[Reply | BaseException]:
    async def run() -> list[Reply | BaseException]:
        return await asyncio.gather(*map(judge.ask, calls), return_exceptions=True)

    return asyncio.run(run())


@every
def test_it_replies_with_text_and_tokens(example, tmp_path, server):
    judge = made(example, tmp_path, server)
    assert check(made(example, tmp_path, server)).text.strip(), "as authors of plug-ins check theirs"

    async def run() -> tuple[Reply, Abilities]:
        return await judge.ask(call()), await judge.abilities()

    reply, abilities = asyncio.run(run())
    assert reply.text.strip() and (example.text is None or reply.text == example.text)
    assert reply.usage.prompt > 0 and reply.usage.completion > 0 and reply.usage.estimated == example.estimated
    assert reply.finish in ("stop", "length") and reply.expected is None and reply.adapted == ()
    assert judge.name and judge.identity and judge.count_tokens("some text") > 0
    assert abilities.answered


@every
def test_it_fails_by_the_call(example, tmp_path, server):
    """One that cannot be answered, among others that can."""
    judge = made(example, tmp_path, server)
    first, failed, last = asked(judge, call("a"), call("fail"), call("b"))
    assert isinstance(first, Reply) and isinstance(last, Reply)
    if example.failure is None:
        assert isinstance(failed, Reply)
    else:
        assert isinstance(failed, CallError) and example.failure in failed.reason and not failed.retry, failed
        assert failed.usage is None and failed.kind == "call"


@every
def test_its_options_decide_what_is_cached_or_are_refused(example, tmp_path, server):
    judge = made(example, tmp_path, server)
    if example.option is None:
        with pytest.raises(ConfigError, match="takes no --option"):
            made(example, tmp_path, server, options={"x": 1})
    else:
        other = made(example, tmp_path, server, options=example.option)
        assert other.identity != judge.identity == made(example, tmp_path, server).identity
        assert isinstance(asked(other, call())[0], Reply)


@every
def test_it_answers_once_and_then_from_the_cache(example, tmp_path, server):
    judge = made(example, tmp_path, server)
    cache = Cache(tmp_path / "cache.sqlite")

    async def run() -> None:
        first = caller(judge, cache)
        answers = [await first.ask(call()) for _ in range(2)] + [await caller(judge, cache).ask(call())]
        assert [answer.record.cached for answer in answers] == [False, True, True]
        assert len({answer.reply.text for answer in answers if answer.reply}) == 1
        assert len({answer.reply for answer in answers}) == 1
        assert (first.counts.calls, first.counts.cached) == (1, 1)
        await judge.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    "name", ["openai:", "hf:", "scripted:", "scripted:/nowhere", "simulated:none=1", "nobody:x", "m"]
)
def test_a_judge_that_there_cannot_be_is_one_line(name):
    with pytest.raises(ConfigError, match="^--judge") as refused:
        make(name, Backend(base_url="http://127.0.0.1:9"))
    assert "\n" not in str(refused.value)
