"""Where a run runs: in an event loop of its own, called from a program, a thread or a notebook; and its signals."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")


class Stop:
    """A request to stop, from any thread."""

    def __init__(self) -> None:
        self._act: Callable[[], None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def calls(self, act: Callable[[], None]) -> None:
        """What to do, within the running loop."""
        self._act, self._loop = act, asyncio.get_running_loop()

    def request(self) -> None:
        """Do it soon."""
        if self._act is not None and self._loop is not None:
            self._loop.call_soon_threadsafe(self._act)


def in_a_loop(make: Callable[[], Coroutine[Any, Any, T]], stop: Stop) -> T:
    """Run it to its end; in a thread where this one has a running loop already, as in a notebook.

    Ctrl-C then asks for a stop, and a second one ends the wait.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(make())
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(lambda: asyncio.run(make()))
        try:
            return future.result()
        except KeyboardInterrupt:
            stop.request()
            return future.result()


@contextmanager
def on_interrupt(act: Callable[[], None]) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM calls `act`; a second one ends the process at once, with what is saved.

    Outside the main thread, signals belong to others.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def first() -> None:
        for number in before:
            loop.remove_signal_handler(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
        act()

    try:
        for number in before:
            loop.add_signal_handler(number, first)
    except NotImplementedError:  # Windows: Ctrl-C ends at once
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            if handler is not None:
                signal.signal(number, handler)
