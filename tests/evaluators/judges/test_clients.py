"""Calls in flight are spread over several clients."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest

from evaluators.judges.openai.clients import CALLS_EACH, Clients
from evaluators.messages import Reply
from tests.evaluators.judges.asking import ask_all, call, judge_of


class Client:
    def __init__(self):
        self.closed = False

    async def close(self):
        self.closed = True


def test_a_client_has_a_few_calls_and_the_first_with_room_has_the_next():
    made: list[Client] = []

    def make():
        made.append(Client())
        return made[-1]

    clients = Clients(make)
    with ExitStack() as calls:
        used = [calls.enter_context(clients.one()) for _ in range(2 * CALLS_EACH + 1)]
        assert [made.index(client) for client in used] == [at // CALLS_EACH for at in range(2 * CALLS_EACH + 1)]
    with pytest.raises(ValueError, match="lost"), clients.one() as client:
        assert client is made[0]
        raise ValueError("lost")
    with ExitStack() as calls:
        assert {calls.enter_context(clients.one()) for _ in range(CALLS_EACH)} == {made[0]}
    asyncio.run(clients.close())
    assert len(made) == 3
    assert all(client.closed for client in made)


def test_more_calls_at_once_than_a_client_has_are_all_answered(server):
    calls = [call(f"q{number}") for number in range(3 * CALLS_EACH)]
    first, second = ask_all(judge_of(server), calls, calls)
    assert all(isinstance(reply, Reply) for reply in [*first, *second])
