"""Several clients of one server, each with a few calls in flight: with each call a client looks at all connections."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

CALLS_EACH = 16


class Clients:
    """As many as the calls in flight need."""

    def __init__(self, make: Callable[[], Any]) -> None:
        """Makes the first one. Raises as `make` does."""
        self._make = make
        self._clients = [make()]
        self._in_flight = [0]

    @contextmanager
    def one(self) -> Iterator[Any]:
        """The first that has room for a call, around that call."""
        at = next((at for at, calls in enumerate(self._in_flight) if calls < CALLS_EACH), len(self._clients))
        if at == len(self._clients):
            self._clients.append(self._make())
            self._in_flight.append(0)
        self._in_flight[at] += 1
        try:
            yield self._clients[at]
        finally:
            self._in_flight[at] -= 1

    async def close(self) -> None:
        """Close the connections of all."""
        for client in self._clients:
            await client.close()
